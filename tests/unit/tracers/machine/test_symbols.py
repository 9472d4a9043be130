# SPDX-License-Identifier: Apache-2.0
"""Which symbols of /proc/kallsyms are the functions that are looked for."""

from __future__ import annotations

import pytest

from balloontrace.tracers.machine.symbols import Symbol, find_functions

ADDRESS = 0xFFFFFFFFC0001000


def _found(*lines: str) -> list[Symbol]:
    text = "".join(f"{ADDRESS + at:x} {line}\n" for at, line in enumerate(lines))
    found = find_functions(["leak_balloon"], ["virtio_balloon"], text.encode())
    return found.get("leak_balloon", [])


@pytest.mark.parametrize("suffix", ["", ".llvm.1234567", ".lto_priv.0", ".__uniq.77.llvm.3"])
def test_what_only_names_it_anew_is_the_function(suffix: str) -> None:
    (symbol,) = _found(f"t leak_balloon{suffix}\t[virtio_balloon]")
    assert symbol == Symbol(f"leak_balloon{suffix}", ADDRESS, "virtio_balloon", altered=False)


@pytest.mark.parametrize("suffix", [".isra.0", ".constprop.0.isra.0", ".part.0"])
def test_what_changes_its_arguments_is_said(suffix: str) -> None:
    (symbol,) = _found(f"t leak_balloon{suffix}\t[virtio_balloon]")
    assert symbol.altered


@pytest.mark.parametrize(
    "line", ["t leak_balloon.cold", "t leak_balloon_ext", "d leak_balloon", "t my_leak_balloon"]
)
def test_what_is_another_symbol_is_not_it(line: str) -> None:
    assert _found(line) == []


def test_the_modules_function_comes_before_the_kernels() -> None:
    lines = ("t leak_balloon", "t leak_balloon\t[virtio_balloon]", "t leak_balloon\t[another]")
    assert [s.module for s in _found(*lines)] == ["virtio_balloon"]
