# SPDX-License-Identifier: Apache-2.0
"""The programs that are shipped are those of the source, for each machine."""

from __future__ import annotations

import struct

import pytest

from balloontrace.tracers.load import compiler, shipped

ATOMIC, ADD = (0xC3, 0xDB), 0
"""Of 32 and 64 bits; until commit 5ffa25502b5a "bpf: Add instructions for atomic_[cmp]xchg" and
those around it (in v5.12) they could only add."""

LOAD_U64, MOVE, CALL = 0x79, 0xBF, 0x85
CONTEXT = 1  # the register in which a program is given its context
WRITES = {0, 1, 4, 7}  # classes of operations that write their target: loads and arithmetic
SCRATCH = {1, 2, 3, 4, 5}  # what a call leaves undefined
REGISTERS = {"x86_64": ((112, 104, 96, 88), 80), "aarch64": ((0, 8, 16, 24), 0)}
"""Byte offsets in struct pt_regs of the first four arguments and of the result: di, si, dx, cx and
ax of arch/x86, regs[0] to regs[3] and regs[0] of arch/arm64."""


def _context_loads(code: bytes) -> list[int]:
    """Offsets of the 64-bit loads from the context, wherever the compiler keeps its address."""
    found, holders = [], {CONTEXT}
    for operation, registers, offset, _ in struct.iter_unpack("<BBhi", code):
        target, source = registers & 15, registers >> 4
        if operation == LOAD_U64 and source in holders:
            found.append(offset)
        if operation == MOVE and source in holders:
            holders = holders | {target}
        elif operation & 7 in WRITES:
            holders = holders - {target}
        if operation == CALL:
            holders -= SCRATCH
    return found


@pytest.mark.parametrize("machine", REGISTERS)
def test_what_is_shipped_is_made_of_this_source(machine: str) -> None:
    code = shipped.find(compiler.digest(), machine)
    assert code is not None, "the programs were changed: make bytecode"
    assert set(code.programs) == set(compiler.PROGRAMS)


def test_of_another_source_or_for_another_machine_nothing_is_shipped() -> None:
    assert shipped.find("0" * 64, "x86_64") is None
    assert shipped.find(compiler.digest(), "s390x") is None


@pytest.mark.parametrize("machine", REGISTERS)
def test_nothing_atomic_but_adding_which_old_kernels_know(machine: str) -> None:
    code = shipped.find(compiler.digest(), machine)
    assert code is not None
    for name, program in code.programs.items():
        operations = [
            what for operation, _, _, what in struct.iter_unpack("<BBhi", program)
            if operation in ATOMIC
        ]  # fmt: skip
        assert set(operations) <= {ADD}, name


@pytest.mark.parametrize("machine", REGISTERS)
def test_arguments_are_read_from_the_registers_of_the_machine(machine: str) -> None:
    code = shipped.find(compiler.digest(), machine)
    assert code is not None
    parameters, result = REGISTERS[machine]
    assert set(parameters) <= set(_context_loads(code.programs["kprobe_entry"]))
    assert _context_loads(code.programs["kprobe_return"])[0] == result
