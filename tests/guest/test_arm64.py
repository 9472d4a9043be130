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
from balloontrace.tracers import compiler
# Newer BCC asks for x86's branch protection, as the guest's kernel has.
flags = [*compiler.definitions(1 << 20), "-fcf-protection=none"]
programs = compiler.compile_programs(flags).programs
print(json.dumps({name: code.hex() for name, code in programs.items()}))
"""

LOAD_U64, MOVE, CALL = 0x79, 0xBF, 0x85
CONTEXT = 1  # the register in which a program is given its context
WRITES = {0, 1, 4, 7}  # classes of operations that write their target: loads and arithmetic
SCRATCH = {1, 2, 3, 4, 5}  # what a call leaves undefined
REGISTERS = {"x86_64": {"parm1": 112, "parm3": 96}, "arm64": {"parm1": 0, "parm3": 16}}
"""Byte offsets in struct pt_regs: di, si, dx of arch/x86, regs[0] to regs[2] of arch/arm64."""


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
    assert {"entered", "returned", "reclaim_end", "outbuf_entry"} <= set(programs)
    assert _context_loads(programs["victim_entry"])[0] == REGISTERS[machine]["parm1"]
    assert REGISTERS[machine]["parm3"] in _context_loads(programs["report_entry"])
