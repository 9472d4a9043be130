# SPDX-License-Identifier: Apache-2.0
"""What is shipped is what the compiler makes of the source, to the byte, for each machine."""

from __future__ import annotations

import pytest

from balloontrace.lab.guest import Guest
from tools.bytecode import MACHINES, made_in, path_of


@pytest.mark.one_kernel
@pytest.mark.parametrize("machine", MACHINES)
def test_the_compiler_makes_the_same_again(stock: Guest, machine: str) -> None:
    assert made_in(stock, machine) == path_of(machine).read_bytes()
