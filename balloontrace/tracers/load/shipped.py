# SPDX-License-Identifier: Apache-2.0
"""The programs as they are shipped: bytecode for each machine, so that no guest needs a compiler.

`make bytecode` makes it (tools/bytecode.py). It is free of the kernel: offsets come through a map,
and the loader gives the maps their sizes. A file is used only for the source that it was made of.
"""

from __future__ import annotations

import json
import os
import pkgutil

from balloontrace.tracers.load import bytecode

_PACKAGE = "balloontrace.tracers"


def name_of(machine: str) -> str:
    """The file for a machine, as uname(2) calls it, beside the package of tracers."""
    return f"bpf/bytecode/{machine}.json"


def find(digest: str | None, machine: str = "") -> bytecode.Compiled | None:
    """What is shipped for `machine`, by default this one; None if nothing is, or if it was not made
    of the source with this digest: somebody changes the programs. digest: None, there is no source
    here (compiler.digest)."""
    try:
        content = pkgutil.get_data(_PACKAGE, name_of(machine or os.uname().machine))
    except OSError:
        return None
    if not content or digest not in (None, json.loads(content)["source"]):
        return None
    return bytecode.from_json(content)


def to_json(code: bytecode.Compiled, digest: str) -> bytes:
    """The content of a file: the same bytes for the same code."""
    content = {"source": digest, **json.loads(code.to_json())}
    return json.dumps(content, indent=0).encode() + b"\n"
