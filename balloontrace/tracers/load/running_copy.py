# SPDX-License-Identifier: Apache-2.0
"""The copy of the one file for guests (`balloontrace bundle`) from which a recorder runs.

It is in memory: a recorder imports now and then, when the file may have been replaced, or may not
be readable for one who has given up his privileges. Its modules are compiled, by who made the file
or, for another version of Python, by the process that becomes the recorder: compiling would leave 1
MiB behind in the recorder, and 2 in the netlink process, for a copy of 0.4. Only what these two
import is in it, for a recording waits for it.
"""

from __future__ import annotations

import os
import zipimport
from typing import TYPE_CHECKING

from balloontrace.errors import UserError
from balloontrace.one_file import RECORDERS, UNCHECKED, compiled_recorders
from balloontrace.tracers.machine import interpreter

if TYPE_CHECKING:
    from typing import BinaryIO


def make() -> str:
    """Make one, which outlives exec; returns what is to be in sys.path. Raises OSError, or
    UserError if the file from which this runs is another by now."""
    copy = os.memfd_create("balloontrace", 0)
    with open(copy, "wb", closefd=False) as file:
        bundle = zipimport.zipimporter(interpreter.package_root())
        try:
            try:
                file.write(bundle.get_data(compiled_recorders()))
            except OSError:  # made by another version of Python
                _compile(bundle, file)
        except zipimport.ZipImportError as error:
            raise UserError(f"this file was replaced meanwhile: {error}", "run it again") from None
    return interpreter.held_path(copy)


def _compile(bundle: zipimport.zipimporter, file: BinaryIO) -> None:
    """Compile what RECORDERS names into a zip. Raises OSError."""
    import importlib.util
    import marshal
    import zipfile

    head = importlib.util.MAGIC_NUMBER + UNCHECKED
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as into:
        for name in bundle.get_data(RECORDERS).decode().splitlines():
            code = compile(bundle.get_data(name), name, "exec", dont_inherit=True)
            into.writestr(f"{name}c", head + marshal.dumps(code))
