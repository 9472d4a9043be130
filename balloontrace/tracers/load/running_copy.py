# SPDX-License-Identifier: Apache-2.0
"""The copy of the one file for guests (`balloontrace bundle`) from which a recorder runs.

It is in memory: a recorder imports now and then, when the file may have been replaced, or may not
be readable for one who has given up his privileges. Its modules are compiled, by the process that
becomes the recorder: compiling would leave 1 MiB behind in the recorder, and 2 in the netlink
process, for a copy of 0.4. Only what these two import is in it, for a recording waits for it.
"""

from __future__ import annotations

import importlib.util
import marshal
import os
import zipfile

from balloontrace.one_file import RECORDERS
from balloontrace.tracers.machine import interpreter

_UNCHECKED = (1).to_bytes(4, "little") + bytes(8)
"""Flags and hash of a compiled module that is not compared with its source (PEP 552)."""


def make() -> str:
    """Make one, which outlives exec; returns what is to be in sys.path. Raises OSError."""
    copy = os.memfd_create("balloontrace", 0)
    with (
        open(copy, "wb", closefd=False) as file,
        zipfile.ZipFile(interpreter.package_root()) as bundle,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as into,
    ):
        for name in bundle.read(RECORDERS).decode().splitlines():
            into.writestr(f"{name}c", _compiled(name, bundle.read(name)))
    return interpreter.held_path(copy)


def _compiled(name: str, source: bytes) -> bytes:
    """What a .pyc file has for this Python."""
    code = compile(source, name, "exec", dont_inherit=True)
    return importlib.util.MAGIC_NUMBER + _UNCHECKED + marshal.dumps(code)
