# SPDX-License-Identifier: Apache-2.0
"""One QEMU process: its command line, its life, its certain end."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.lab.balloon import BALLOON_ID
from balloontrace.lab.console import Console
from balloontrace.lab.host import tool
from balloontrace.lab.image import Image

DRIVERS = ("stock", "shrinker", "none")
"""The balloon drivers a guest can have."""

_KVM = Path("/dev/kvm")
_EMULATED_CPU = "max,-erms,-fsrm,-fzrm,-fsrs,-fsrc"
"""For a CPU that QEMU emulates: its kernel does not clear and copy pages byte by byte, which the
emulator does one by one."""

_EMULATED_PARAMETERS = "mitigations=off tsc=reliable "
"""For a kernel on an emulated CPU, which does not speculate, and whose vCPUs have one counter. By
itself such a kernel reads the time from an HPET, another device to emulate."""

_ACCEL_PARAMETERS = {"kvm": "", "tcg": _EMULATED_PARAMETERS, "tcg-single": _EMULATED_PARAMETERS}
_ACCEL_OPTIONS = {
    "kvm": ("-accel", "kvm", "-cpu", "host"),
    "tcg": ("-accel", "tcg,thread=multi,tb-size=256", "-cpu", _EMULATED_CPU),  # small is enough
    # One host thread for all vCPUs: slower, but none runs code that another is just patching.
    "tcg-single": ("-accel", "tcg,thread=single,tb-size=256", "-cpu", _EMULATED_CPU),
}

ACCEL_VARIABLE = "BALLOONTRACE_ACCEL"
"""Says which of ACCELERATORS to take."""

ACCELERATORS = tuple(_ACCEL_OPTIONS)
"""What can run a guest's CPUs."""


@dataclass(frozen=True)
class GuestConfig:
    """What a guest is made of. driver is ``stock``, ``shrinker`` or ``none``; userspace is one of
    ``userspaces.toml``, or empty for the kernel's own.

    disk_bytes is the size of its disk, 0 for the image's; the file system does not grow by itself.
    hinting offers free page hinting, which `Balloon.hinting` sets off, reporting free page
    reporting, page_poison that the guest tells what it fills free pages with. balloon_options are
    further properties of QEMU's virtio-balloon-pci, such as ``event_idx=off``; kernel_options are
    further words of the guest kernel's command line. accel is one of ACCELERATORS, or empty for
    what `choose_accel` returns. locked: the host keeps all of the guest's memory, as it does for
    who asks for it (QEMU -overcommit mem-lock=on). monitor: where QEMU is to have a Unix socket for
    whoever watches it from outside, if anywhere: the lab's own monitor takes one client.
    """

    kernel: str = "6.1"
    driver: str = "stock"
    userspace: str = ""
    memory_bytes: int = 1 << 30
    cpus: int = 2
    deflate_on_oom: bool = True
    headers: bool = False
    hinting: bool = False
    reporting: bool = False
    page_poison: bool = True
    balloon_options: tuple[str, ...] = ()
    kernel_options: tuple[str, ...] = ()
    disk_bytes: int = 0
    accel: str = ""
    locked: bool = False
    monitor: str = ""


def choose_accel() -> str:
    """Return ``kvm`` where it truly works, else ``tcg``; BALLOONTRACE_ACCEL overrides.

    The variable also takes ``tcg-single``. A nested host without vmx or svm may offer /dev/kvm and
    boot no kernel on it. Raises UserError if the variable has another value.
    """
    wanted = os.environ.get(ACCEL_VARIABLE, "")
    if wanted:
        if wanted not in ACCELERATORS:
            *others, last = ACCELERATORS
            hint = f"set it to {', '.join(others)} or {last}"
            raise UserError(f"{ACCEL_VARIABLE} is {wanted!r}", hint, EXIT_USAGE)
        return wanted
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    virtualises = re.search(r"^flags\s*:.*\b(vmx|svm)\b", cpuinfo, re.MULTILINE)
    return "kvm" if virtualises and os.access(_KVM, os.R_OK | os.W_OK) else "tcg"


def accel_of(config: GuestConfig) -> str:
    """Return what runs the CPUs of such a guest. Raises UserError as `choose_accel` does."""
    return config.accel or choose_accel()


def qemu_argv(
    config: GuestConfig, image: Image, overlay: Path, accel: str, qmp_fd: int
) -> list[str]:
    """Return QEMU's command line, without the program itself. qmp_fd is a connected socket."""
    argv = [
        "-machine", "q35", *_ACCEL_OPTIONS[accel],
        "-m", f"{config.memory_bytes >> 20}M", "-smp", str(config.cpus),
        "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
        "-chardev", f"socket,id=qmp,fd={qmp_fd}", "-mon", "chardev=qmp,mode=control",
        "-kernel", str(image.vmlinuz), "-initrd", str(image.initrd),
        "-append", f"{_ACCEL_PARAMETERS[accel]}{kernel_parameters(config)}",
        "-drive", f"file={_escaped(overlay)},if=virtio,format=qcow2,cache=unsafe",
        "-netdev", "user,id=net,hostfwd=tcp:127.0.0.1:0-:22",
        "-device", "virtio-net-pci,netdev=net",
        *_balloon_device(config),
    ]  # fmt: skip
    if config.monitor:
        argv += ["-qmp", f"unix:{_escaped(Path(config.monitor))},server=on,wait=off"]
    if config.locked:
        argv += ["-overcommit", "mem-lock=on"]
    disks = {"headers": image.headers, "modules": image.modules}
    for name in _disks(config):
        argv += ["-drive", f"file={_escaped(disks[name])},if=virtio,format=raw,readonly=on"]
    return argv


def _disks(config: GuestConfig) -> list[str]:
    """What the boot script mounts beside the root disk, by its name there, in QEMU's order."""
    wanted = {"headers": config.headers, "modules": bool(config.userspace)}
    return [name for name, is_wanted in wanted.items() if is_wanted]


def _balloon_device(config: GuestConfig) -> list[str]:
    device = ["virtio-balloon-pci", f"id={BALLOON_ID}"]
    device += [f"deflate-on-oom={'on' if config.deflate_on_oom else 'off'}"]
    if config.reporting:
        device += ["free-page-reporting=on"]
    if not config.page_poison:  # QEMU offers it by itself
        device += ["page-poison=off"]
    if config.hinting:  # the hints are taken by a thread of their own
        device += ["free-page-hint=on", "iothread=balloon-io"]
    thread = ["-object", "iothread,id=balloon-io"] if config.hinting else []
    return [*thread, "-device", ",".join([*device, *config.balloon_options])]


def kernel_parameters(config: GuestConfig) -> str:
    """Return the guest kernel's command line."""
    parameters = ["root=/dev/vda console=ttyS0 net.ifnames=0 loglevel=4 panic=-1"]
    parameters += [f"balloontrace.driver={config.driver}"]
    for letter, name in zip("bc", _disks(config), strict=False):  # a is the root disk's
        parameters += [f"balloontrace.{name}=/dev/vd{letter}"]
    return " ".join([*parameters, *config.kernel_options])


def make_overlay(image: Image, overlay: Path, disk_bytes: int = 0) -> None:
    """Create the disposable disk that takes all the guest writes, of the image's size or another.

    Raises UserError if that fails.
    """
    argv = [tool("qemu-img"), "create", "-q", "-f", "qcow2", "-F", "raw"]
    size = [str(disk_bytes)] if disk_bytes else []
    done = subprocess.run(
        [*argv, "-b", str(image.rootfs.absolute()), str(overlay), *size],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise UserError(f"cannot create the guest's disk: {done.stderr.strip()}")


class Qemu:
    """A running QEMU. It ends with `stop`, and with this process whatever kills that."""

    def __init__(self, argv: Sequence[str], qmp_fd: int, console: Console) -> None:
        # The kernel ties the death signal to the parent's thread, not to its process: so the
        # thread that starts QEMU is the one that follows its console to the end.
        command = [tool("setpriv"), "--pdeathsig", "KILL", "--", tool("qemu-system-x86_64"), *argv]
        self._process: subprocess.Popen[str] | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(
            target=self._live, args=(command, qmp_fd, console), name="console", daemon=True
        )
        self._thread.start()
        self._started.wait()

    @property
    def pid(self) -> int:
        """QEMU's process, 0 if it could not be started."""
        return self._process.pid if self._process else 0

    def resident_bytes(self) -> int:
        """Return how much of the host's memory QEMU, with its guest's, takes now."""
        if self._process is None:
            return 0
        status = Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii")
        return int(status.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> None:
        """Kill QEMU, which has nothing to save, and wait for its end."""
        if self._process is not None:
            self._process.kill()
        self._thread.join()

    def _live(self, command: list[str], qmp_fd: int, console: Console) -> None:
        try:
            process = subprocess.Popen(
                command, pass_fds=(qmp_fd,), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, encoding="utf-8", errors="replace",
            )  # fmt: skip
            self._process = process
        except OSError as error:
            console.follow([f"cannot start QEMU: {error}\n"])
            return
        finally:
            self._started.set()
        with process:
            console.follow(process.stdout or ())


def start_qemu(
    config: GuestConfig, image: Image, overlay: Path, console: Console
) -> tuple[Qemu, socket.socket]:
    """Start QEMU and return it with our end of its monitor's socket."""
    ours, theirs = socket.socketpair()
    with theirs:
        argv = qemu_argv(config, image, overlay, accel_of(config), theirs.fileno())
        return Qemu(argv, theirs.fileno(), console), ours


def _escaped(path: Path) -> str:
    """A comma ends a value in QEMU's option syntax unless doubled."""
    return str(path).replace(",", ",,")
