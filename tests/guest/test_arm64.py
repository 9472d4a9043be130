# SPDX-License-Identifier: Apache-2.0
"""The programs compile for both architectures, and read the registers of the one they are for.

Compiled in a guest, because BCC is there; its `ARCH` chooses the target.
"""

from __future__ import annotations

import json
import struct

import pytest

from balloontrace.lab.guest import Guest

COMPILE = """
import json
from balloontrace.tracers.load import compiler
# Newer BCC asks for x86's branch protection, as the guest's kernel has.
flags = [*compiler.FLAGS, "-fcf-protection=none"]
programs = compiler.compile_programs(flags).programs
print(json.dumps({name: code.hex() for name, code in programs.items()}))
"""

LOAD_U64, MOVE, CALL = 0x79, 0xBF, 0x85
CONTEXT = 1  # the register in which a program is given its context
WRITES = {0, 1, 4, 7}  # classes of operations that write their target: loads and arithmetic
SCRATCH = {1, 2, 3, 4, 5}  # what a call leaves undefined
REGISTERS = {"x86_64": ((112, 104, 96, 88), 80), "arm64": ((0, 8, 16, 24), 0)}
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


@pytest.mark.one_kernel
@pytest.mark.parametrize("machine", REGISTERS)
def test_arguments_are_read_from_the_registers_of_the_machine(stock: Guest, machine: str) -> None:
    environment = [f"ARCH={'x86' if machine == 'x86_64' else machine}"]
    environment += ["PYTHONPATH=/opt/balloontrace"]
    done = stock.run(["env", *environment, "python3", "-c", COMPILE])
    programs = {name: bytes.fromhex(code) for name, code in json.loads(done.stdout).items()}
    parameters, result = REGISTERS[machine]
    assert set(parameters) <= set(_context_loads(programs["kprobe_entry"]))
    assert _context_loads(programs["kprobe_return"])[0] == result
