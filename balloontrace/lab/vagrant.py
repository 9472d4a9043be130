# SPDX-License-Identifier: Apache-2.0
"""A guest that is a machine of vagrant/Vagrantfile: up before the run and after it, or neither."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from balloontrace.errors import EXIT_UNSUPPORTED, UserError
from balloontrace.lab.console import PANIC
from balloontrace.lab.host import require_tools, tool
from balloontrace.lab.kernels import find_kernel
from balloontrace.lab.qemu import ACCEL_VARIABLE, GuestConfig, choose_accel
from balloontrace.lab.remote import Address, RemoteGuest
from balloontrace.lab.sizes import format_size, whole_gib

Progress = Callable[[str], None]

VAGRANT_DIRECTORY = Path(__file__).resolve().parents[2] / "vagrant"
"""Only a source tree has it."""

_LIBVIRT = "qemu:///system"
_PID_FILES = Path("/run/libvirt/qemu")
_TAIL_LINES = 12
_MIB = 1 << 20


class VagrantGuest(RemoteGuest):
    """The Vagrant machine of a kernel.

    A machine that is up stays up, with another driver if config says so; one that is not there
    is made for the run and destroyed after it. console_log gets what the console said meanwhile.
    Raises UserError for what the Vagrantfile cannot make; it always offers free page reporting.
    """

    def __init__(self, config: GuestConfig, console_log: Path, progress: Progress) -> None:
        super().__init__(config)
        _refuse(config)
        self._machine = find_kernel(config.kernel).machine
        self._console_log = console_log
        self._progress = progress
        self._made = False
        self._domain: Domain | None = None
        self._console = console_log
        self._console_start = 0

    @property
    def monitor(self) -> Domain:
        """The domain, through which libvirt lets QMP commands pass."""
        if self._domain is None:
            raise RuntimeError("the guest is not running")
        return self._domain

    def host_pid(self) -> int:
        """Return QEMU's process on the host, 0 if the guest is not running."""
        return self._domain.pid() if self._domain else 0

    def _start(self) -> Address:
        require_tools(("vagrant", "virsh"))
        if not VAGRANT_DIRECTORY.is_dir():
            raise UserError(
                "Vagrant machines need the source tree", f"no {VAGRANT_DIRECTORY}", EXIT_UNSUPPORTED
            )
        state = self._state()
        self._made = state == "not_created"
        if state != "running":
            self._progress(f"vagrant up {self._machine}")
            self._vagrant("up", "--provider", "libvirt")
        self._domain = Domain(self._domain_id())
        self._check_size(self._domain)
        self._console = self._domain.console()
        self._console_start = self._console.stat().st_size if state == "running" else 0
        self.balloon.set_target_pages(0)  # whatever it was left at
        self._vagrant("ssh", "-c", f"balloon-driver {self.config.driver}")
        return parse_ssh_config(self._vagrant("ssh-config"))

    def _stop(self) -> None:
        with self._console_log.open("w", encoding="utf-8") as log:
            log.write(self._said())
        if self._made:
            self._progress(f"vagrant destroy {self._machine}")
            self._vagrant("destroy", "--force")

    def _trouble(self) -> str:
        said = [line for line in self._said().splitlines() if PANIC in line]
        if said:
            return said[0]
        state = self._domain.state() if self._domain else "not there"
        return "" if state == "running" else f"its domain is {state}"

    def last_lines(self) -> list[str]:
        """See RemoteGuest."""
        return self._said().splitlines()[-_TAIL_LINES:]

    def _said(self) -> str:
        """What the console said since the guest is ours."""
        try:
            with self._console.open("rb") as file:
                file.seek(self._console_start)
                return file.read().decode(errors="replace")
        except OSError:
            return ""

    def _state(self) -> str:
        fields = re.search(r",state,(\w+)$", self._vagrant("status", "--machine-readable"), re.M)
        return fields[1] if fields else "unknown"

    def _domain_id(self) -> str:
        dotfiles = Path(os.environ.get("VAGRANT_DOTFILE_PATH", ".vagrant"))
        path = VAGRANT_DIRECTORY / dotfiles / "machines" / self._machine / "libvirt" / "id"
        return path.read_text(encoding="ascii").strip()

    def _check_size(self, domain: Domain) -> None:
        """A machine that was up already may be of another size."""
        has = _size(domain.memory_bytes, domain.cpus, domain.deflate_on_oom())
        wants = _size(self.config.memory_bytes, self.config.cpus, self.config.deflate_on_oom)
        if has != wants:
            raise UserError(
                f"machine {self._machine} has {has}; wanted are {wants}",
                f"`vagrant destroy {self._machine}` first, or give --memory and --cpus",
            )

    def _vagrant(self, command: str, *arguments: str) -> str:
        """Run Vagrant for our machine and return its stdout. Raises UserError."""
        return run_vagrant(
            command, self._machine, *arguments, cwd=VAGRANT_DIRECTORY, env=environment(self.config)
        )


class Domain:
    """A running libvirt domain, through virsh. Every method raises UserError if that fails."""

    def __init__(self, uuid: str) -> None:
        self._uuid = uuid
        self._xml = ET.fromstring(_virsh("dumpxml", uuid))  # noqa: S314, libvirt's own
        self.memory_bytes = int(self._xml.findtext("memory", "0")) * 1024
        self.cpus = int(self._xml.findtext("vcpu", "0"))

    def execute(self, command: str, **arguments: object) -> Any:
        """Run one QMP command and return its answer."""
        request: dict[str, object] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        answer = json.loads(_virsh("qemu-monitor-command", self._uuid, json.dumps(request)))
        if "error" in answer:
            raise UserError(f"QMP command {command} failed: {answer['error'].get('desc')}")
        return answer["return"]

    def deflate_on_oom(self) -> bool:
        """Return whether the device offers it."""
        path = "/machine/peripheral/balloon0"
        return bool(self.execute("qom-get", path=path, property="deflate-on-oom"))

    def state(self) -> str:
        """Return libvirt's word for its state, such as ``running``."""
        return _virsh("domstate", self._uuid).strip()

    def pid(self) -> int:
        """Return QEMU's process."""
        name = self._xml.findtext("name", "")
        return int((_PID_FILES / f"{name}.pid").read_text(encoding="ascii"))

    def console(self) -> Path:
        """Return the file its console is written to."""
        source = self._xml.find("devices/serial/source")
        return Path(source.get("path", "") if source is not None else "")


def run_vagrant(
    *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> str:
    """Run Vagrant, with these variables besides our own, and return what it printed.

    Raises UserError with its last words.
    """
    process = subprocess.Popen(
        [tool("vagrant"), *arguments], cwd=cwd,
        env={**os.environ, "VAGRANT_CHECKPOINT_DISABLE": "1", **(env or {})},
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        out, errors = process.communicate()
    except BaseException:  # Ctrl-C: Vagrant needs time to clean up what it has begun
        process.send_signal(signal.SIGINT)
        process.communicate()
        raise
    if process.returncode != 0:
        words = (errors or out).strip().splitlines()
        said = words[-1] if words else "it said nothing"
        raise UserError(f"vagrant {' '.join(arguments[:2])} failed", said)
    return out


def environment(config: GuestConfig) -> Mapping[str, str]:
    """Return the variables by which vagrant/Vagrantfile makes a machine of that size."""
    disk = {"BALLOONTRACE_DISK": str(whole_gib(config.disk_bytes))} if config.disk_bytes else {}
    return {
        **disk,
        "BALLOONTRACE_MEMORY": str(config.memory_bytes // _MIB),
        "BALLOONTRACE_CPUS": str(config.cpus),
        "BALLOONTRACE_DEFLATE_ON_OOM": _on_off(config.deflate_on_oom),
        ACCEL_VARIABLE: choose_accel(),
    }


def parse_ssh_config(text: str) -> Address:
    """Return what `vagrant ssh-config` says of a machine. Raises UserError."""
    words = dict(line.split(None, 1) for line in text.splitlines() if len(line.split(None, 1)) == 2)
    try:
        key = words["IdentityFile"].strip('"')
        return Address(words["HostName"], int(words["Port"]), Path(key))
    except (KeyError, ValueError):
        raise UserError("`vagrant ssh-config` names no machine", f"it said {text!r}") from None


def _refuse(config: GuestConfig) -> None:
    cannot = {
        "hinting": config.hinting,
        "page_poison = false": not config.page_poison,
        "kernel_options": bool(config.kernel_options),
        "locked": config.locked,
        "monitor": bool(config.monitor),
    }
    for what, wanted in cannot.items():
        if wanted:
            raise UserError(
                f"a Vagrant machine cannot have the scenario's {what}",
                "run it without --provider vagrant",
                EXIT_UNSUPPORTED,
            )


def _size(memory_bytes: int, cpus: int, deflate_on_oom: bool) -> str:
    return f"{format_size(memory_bytes)}, {cpus} CPUs, deflate-on-oom {_on_off(deflate_on_oom)}"


def _on_off(value: bool) -> str:
    return "on" if value else "off"


def _virsh(*arguments: str) -> str:
    command = [tool("virsh"), "--connect", _LIBVIRT, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UserError(f"virsh {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout
