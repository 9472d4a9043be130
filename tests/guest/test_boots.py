# SPDX-License-Identifier: Apache-2.0
"""Guests that die: of their emulator while they boot, and of themselves while a test uses them."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from balloontrace.lab import boots, guest, qemu
from balloontrace.lab.guest import Guest
from balloontrace.lab.image import ensure_image
from balloontrace.lab.kernels import find_kernel
from balloontrace.lab.qemu import GuestConfig
from balloontrace.lab.remote import GuestDied

NO_KASLR_TEXT = 0xFFFF_FFFF_8100_0000
"""Where x86's kernel begins with nokaslr (Documentation/arch/x86/x86_64/mm.rst)."""

FUNCTION = "do_sys_openat2"
"""Whatever a guest's first process does, it opens a file."""

PATIENCE_S = 60.0


def _address(stock: Guest) -> int:
    """Where FUNCTION lies in a guest with nokaslr."""
    symbols = stock.run(f"grep -E ' (_text|{FUNCTION})$' /proc/kallsyms").stdout.splitlines()
    at = {name: int(address, 16) for address, _, name in map(str.split, symbols)}
    return at[FUNCTION] - at["_text"] + NO_KASLR_TEXT


def _leave_a_breakpoint(console: Path, gdb: Path, address: int) -> None:
    """Once the kernel speaks, put an int3 into it that nobody has set, by QEMU's gdb stub."""
    deadline = time.monotonic() + PATIENCE_S
    while not (console.exists() and "Linux version" in console.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with socket.socket(socket.AF_UNIX) as stub:
        stub.connect(str(gdb))
        for packet in (f"M{address:x},1:cc", "D"):
            stub.sendall(f"+${packet}#{sum(packet.encode()) % 256:02x}".encode())
            answer = b""
            while b"$OK#" not in answer:
                answer += stub.recv(64)


@pytest.mark.one_kernel
def test_a_guest_that_its_emulator_kills_while_it_boots_is_booted_again(
    stock: Guest, kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = _address(stock)
    boots_file, console, gdb = (
        tmp_path / "boots",
        tmp_path / "console",
        Path(stock.directory, "gdb"),
    )
    monkeypatch.setenv(boots.FILE_VARIABLE, str(boots_file))
    qemu_argv = qemu.qemu_argv
    monkeypatch.setattr(
        qemu,
        "qemu_argv",
        lambda *given: [*qemu_argv(*given), "-gdb", f"unix:{gdb},server=on,wait=off"],
    )
    config = GuestConfig(kernel, kernel_options=("nokaslr", "loglevel=7"))
    said: list[str] = []
    spoiler = threading.Thread(target=_leave_a_breakpoint, args=(console, gdb, address))
    spoiler.start()
    with Guest(ensure_image(find_kernel(kernel), print), config, said.append, console) as booted:
        assert booted.run("echo alive").stdout == "alive\n"
    spoiler.join()
    first, second = boots.read(boots_file)
    assert re.search(r"int3: 0000 \[#1\]", first.oops)
    assert second.oops == ""
    assert said == [f"the emulator killed the guest ({first.oops}), booting it again"]


@pytest.mark.one_kernel
def test_a_guest_that_its_emulator_does_not_run_is_booted_again(
    kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(boots.FILE_VARIABLE, str(tmp_path / "boots"))
    monkeypatch.setattr(guest, "BOOT_TIMEOUT_S", 3.0)
    qemu_argv, frozen = qemu.qemu_argv, [["-S"]]
    monkeypatch.setattr(
        qemu, "qemu_argv", lambda *given: [*qemu_argv(*given), *(frozen.pop() if frozen else [])]
    )
    said: list[str] = []

    def told(text: str) -> None:
        said.append(text)
        monkeypatch.setattr(guest, "BOOT_TIMEOUT_S", 240.0)

    with Guest(ensure_image(find_kernel(kernel), print), GuestConfig(kernel), told) as booted:
        assert booted.run("echo alive").stdout == "alive\n"
    assert said == ["the emulator killed the guest (not a word in 3 s), booting it again"]
    assert [boot.oops for boot in boots.read(tmp_path / "boots")] == ["not a word in 3 s", ""]


@pytest.mark.one_kernel
def test_a_guest_that_dies_of_anything_else_is_not_booted_again(
    kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(boots.FILE_VARIABLE, str(tmp_path / "boots"))
    config = GuestConfig(kernel, kernel_options=("root=/dev/nothing", "rdinit=/nothing"))
    image = ensure_image(find_kernel(kernel), print)
    with pytest.raises(GuestDied, match="Kernel panic"), Guest(image, config, print):
        pass
    assert [boot.oops for boot in boots.read(tmp_path / "boots")] == [""]


@pytest.mark.one_kernel
def test_a_dead_guest_costs_one_test(kernel: str) -> None:
    tests = Path(__file__).with_name("dying.py")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--kernel", kernel]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}
    command += [str(tests)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    said = done.stdout
    assert re.search("1 failed, 2 passed, 2 errors", said), said
    for name in (
        "test_in_which_the_guest_dies",
        "test_that_does_not_notice",
        "test_in_whose_preparation_the_guest_dies",
    ):
        assert re.search(rf"died in \S+::{name}\[{kernel}\]: {kernel}: the guest died: .*", said)
    assert "sysrq triggered crash" in said
    assert "guests booted: 4, killed by the emulator and booted again: 0" in said
