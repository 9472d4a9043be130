# SPDX-License-Identifier: Apache-2.0
"""Compiled programs are kept, and used again only if nobody else can have touched them."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from balloontrace.tracers.load import bytecode, cache, packages
from balloontrace.tracers.load.bytecode import Compiled
from balloontrace.tracers.machine.bpf_calls import MapDefinition

RING = MapDefinition(27, 0, 0, 1 << 20, 0, "events")
ARRAY = MapDefinition(2, 4, 64, 1, 1 << 10, "level")


def instruction(operation: int, source: int = 0, imm: int = 0) -> bytes:
    """One struct bpf_insn."""
    return struct.pack("<BBhi", operation, source << 4, 0, imm)


def program(first: int, second: int) -> bytes:
    """Loads the addresses of two maps, and a number of 64 bits that is as large as both."""
    map_loads = (instruction(0x18, 1, fd) + instruction(0) for fd in (first, second))
    number = instruction(0x18, 0, 7) + instruction(0x18, 1, 7)  # its upper half looks like a load
    return b"".join(map_loads) + number + instruction(0x95)


@pytest.fixture
def code() -> Compiled:
    return bytecode.unlinked({"entered": program(7, 9)}, {7: RING, 9: ARRAY})


def test_maps_are_named_by_their_place_until_they_are_made(code: Compiled) -> None:
    assert bytecode.map_descriptors([program(9, 7), program(7, 9)]) == [9, 7]
    assert code.maps == (RING, ARRAY)
    assert code.programs == {"entered": program(0, 1)}
    assert code.linked([31, 30]) == {"entered": program(31, 30)}


def test_what_was_kept_is_found_again(code: Compiled, tmp_path: Path) -> None:
    cache.keep("one", code, tmp_path / "cache")
    assert cache.find("one", tmp_path / "cache") == code
    assert cache.find("other", tmp_path / "cache") is None
    modes = [
        path.stat().st_mode & 0o777 for path in (tmp_path / "cache", tmp_path / "cache" / "one")
    ]
    assert modes == [0o700, 0o600]


def _damage(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)


def _tear(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _move_behind_a_symlink(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to("elsewhere")


@pytest.mark.parametrize(
    "spoil",
    [
        _damage,
        _tear,
        _move_behind_a_symlink,
        lambda file: file.chmod(0o660),
        lambda file: file.parent.chmod(0o777),
        lambda file: (file.unlink(), file.mkdir()),
    ],
    ids=["damaged", "torn", "symlink", "group writes", "directory of all", "a directory"],
)
def test_what_somebody_may_have_changed_is_not_used(
    spoil: Callable[[Path], object], code: Compiled, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    cache.keep("one", code, tmp_path)
    assert cache.find("one", tmp_path) == code
    spoil(tmp_path / "one")
    assert cache.find("one", tmp_path) is None


def test_what_another_user_made_is_not_used(
    code: Compiled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.keep("one", code, tmp_path / "cache")
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    assert cache.find("one", tmp_path / "cache") is None
    cache.keep("two", code, tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["one"]


def test_old_files_go(code: Compiled, tmp_path: Path) -> None:
    for number in range(cache.KEPT + 2):
        cache.keep(str(number), code, tmp_path / "cache")
        os.utime(tmp_path / "cache" / str(number), (number, number))
    kept = {path.name for path in (tmp_path / "cache").iterdir()}
    assert kept == {str(number) for number in range(2, cache.KEPT + 2)}


def test_a_place_that_takes_nothing_is_no_error(code: Compiled, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache.keep("one", code, tmp_path / "file")
    cache.keep("one", code, tmp_path / "no" / "such")
    assert cache.find("one", tmp_path / "file") is None


def test_another_source_or_compiler_has_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find", lambda _: "0.26.0")
    names = {cache.key("a"), cache.key("b")}
    monkeypatch.setattr(packages, "find", lambda _: "0.35.0")
    assert len({*names, cache.key("a")}) == 3
