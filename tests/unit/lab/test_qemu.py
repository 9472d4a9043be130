# SPDX-License-Identifier: Apache-2.0
"""QEMU's command line, and the choice between KVM and TCG."""

from __future__ import annotations

from pathlib import Path

import pytest

from balloontrace.errors import UserError
from balloontrace.lab.image import Image
from balloontrace.lab.qemu import GuestConfig, choose_accel, kernel_parameters, qemu_argv


def argv(config: GuestConfig, overlay: str = "/run/x/root.qcow2", accel: str = "tcg") -> list[str]:
    return qemu_argv(config, Image(Path("/images/6.1")), Path(overlay), accel, 7)


def value(arguments: list[str], option: str) -> str:
    return arguments[arguments.index(option) + 1]


def balloon(config: GuestConfig) -> str:
    (device,) = [word for word in argv(config) if word.startswith("virtio-balloon-pci")]
    return device


def test_memory_cpus_and_monitor() -> None:
    arguments = argv(GuestConfig(memory_bytes=4 << 30, cpus=3))
    assert value(arguments, "-m") == "4096M"
    assert value(arguments, "-smp") == "3"
    assert "socket,id=qmp,fd=7" in arguments
    assert "-no-reboot" in arguments


def test_balloon_options() -> None:
    assert balloon(GuestConfig()) == "virtio-balloon-pci,id=balloon,deflate-on-oom=on"
    config = GuestConfig(
        deflate_on_oom=False, reporting=True, page_poison=False, balloon_options=("event_idx=off",)
    )
    features = ["deflate-on-oom=off", "free-page-reporting=on", "page-poison=off"]
    assert balloon(config).split(",")[2:] == [*features, "event_idx=off"]


def test_a_monitor_for_others() -> None:
    arguments = argv(GuestConfig(monitor="/run/a,b"))
    assert value(arguments, "-qmp") == "unix:/run/a,,b,server=on,wait=off"
    assert "-qmp" not in argv(GuestConfig())


def test_hinting_brings_the_thread_it_needs() -> None:
    arguments = argv(GuestConfig(hinting=True))
    assert value(arguments, "-object") == "iothread,id=balloon-io"
    assert balloon(GuestConfig(hinting=True)).endswith(",free-page-hint=on,iothread=balloon-io")
    assert "-object" not in argv(GuestConfig())


def test_kernel_options_come_last_and_so_win() -> None:
    parameters = kernel_parameters(GuestConfig(kernel_options=("psi=0", "loglevel=7")))
    assert parameters.endswith(" psi=0 loglevel=7")


EMULATED_CPU = "max,-erms,-fsrm,-fzrm,-fsrs,-fsrc"


def test_a_vagrant_machine_s_emulated_cpu_is_the_same() -> None:
    vagrantfile = Path(__file__).parents[3] / "vagrant" / "Vagrantfile"
    assert f'"{EMULATED_CPU}"' in vagrantfile.read_text(encoding="utf-8")


def test_only_an_emulated_cpu_goes_without_mitigations() -> None:
    assert value(argv(GuestConfig(), accel="tcg"), "-cpu") == EMULATED_CPU
    assert value(argv(GuestConfig(), accel="kvm"), "-cpu") == "host"
    emulated = value(argv(GuestConfig(), accel="tcg"), "-append").split()
    assert {"mitigations=off", "tsc=reliable"} < set(emulated)
    assert "mitigations=off" not in value(argv(GuestConfig(), accel="kvm"), "-append")
    assert "tsc=reliable" not in value(argv(GuestConfig(), accel="kvm"), "-append")


def test_a_comma_in_a_path_is_no_separator() -> None:
    drive = value(argv(GuestConfig(), overlay="/a,b/root.qcow2"), "-drive")
    assert drive.startswith("file=/a,,b/root.qcow2,if=virtio")


def test_headers_are_attached_only_on_request() -> None:
    assert not [word for word in argv(GuestConfig()) if "headers.ext4" in word]
    config = GuestConfig(headers=True)
    (drive,) = [word for word in argv(config) if "headers.ext4" in word]
    assert "readonly=on" in drive
    assert "balloontrace.headers=/dev/vdb" in kernel_parameters(config)


def test_another_userspace_brings_the_modules_of_the_kernel_on_a_disk() -> None:
    config = GuestConfig(userspace="bare", headers=True)
    image = Image(Path("/images/6.1"), Path("/images/bare"))
    arguments = qemu_argv(config, image, Path("/run/x/root.qcow2"), "tcg", 7)
    drives = [word for word in arguments if "readonly=on" in word]
    assert "file=/images/6.1/headers.ext4," in drives[0]
    assert "file=/images/6.1/rootfs.ext4," in drives[1]
    assert image.rootfs == Path("/images/bare/rootfs.ext4")
    words = kernel_parameters(config).split()
    assert {"balloontrace.headers=/dev/vdb", "balloontrace.modules=/dev/vdc"} <= set(words)
    assert "balloontrace.modules" not in kernel_parameters(GuestConfig())


def test_the_kernel_is_told_its_driver_and_to_end_on_panic() -> None:
    parameters = kernel_parameters(GuestConfig(driver="shrinker")).split()
    assert "balloontrace.driver=shrinker" in parameters
    assert "panic=-1" in parameters


@pytest.mark.parametrize("accel", ["kvm", "tcg"])
def test_the_environment_overrides_the_accelerator(
    monkeypatch: pytest.MonkeyPatch, accel: str
) -> None:
    monkeypatch.setenv("BALLOONTRACE_ACCEL", accel)
    assert choose_accel() == accel


def test_an_unknown_accelerator_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BALLOONTRACE_ACCEL", "magic")
    with pytest.raises(UserError, match="set it to kvm, tcg or tcg-single"):
        choose_accel()
