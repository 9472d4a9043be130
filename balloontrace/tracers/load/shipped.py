# SPDX-License-Identifier: Apache-2.0
"""The programs as they are shipped: bytecode for each machine, so that no guest needs a compiler.

`make bytecode` makes it (tools/bytecode.py). It is free of the kernel: offsets come through a map,
and the loader gives the maps their sizes. A file is used only for the source that it was made of.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from balloontrace.tracers.load import bytecode

DIRECTORY = Path(__file__).parents[1] / "bpf" / "bytecode"


def path_of(machine: str) -> Path:
    """The file for a machine, as uname(2) calls it."""
    return DIRECTORY / f"{machine}.json"


def find(digest: str, machine: str = "") -> bytecode.Compiled | None:
    """What is shipped for `machine`, by default this one; None if nothing is, or if it was not made
    of the source with this digest: somebody changes the programs."""
    try:
        content = path_of(machine or os.uname().machine).read_bytes()
    except OSError:
        return None
    return bytecode.from_json(content) if json.loads(content)["source"] == digest else None


def to_json(code: bytecode.Compiled, digest: str) -> bytes:
    """The content of a file: the same bytes for the same code."""
    content = {"source": digest, **json.loads(code.to_json())}
    return json.dumps(content, indent=0).encode() + b"\n"
