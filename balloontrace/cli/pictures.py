# SPDX-License-Identifier: Apache-2.0
"""Writing the pictures of `report` and `compare` to files."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from balloontrace.analysis import dependencies
from balloontrace.cli import output
from balloontrace.destination import new_file, refuse_file
from balloontrace.errors import EXIT_USAGE, UserError

ENDINGS = {"--html": ("html", "htm"), "--svg": ("svg", "png")}
"""Option -> how the name of what it writes can end; of --svg, that tells what kind it is to be."""


def check(html: Path | None, still: Path | None, inputs: Sequence[Path], force: bool) -> bool:
    """Whether a picture is wanted at all. inputs: the recordings that are drawn; force: a picture
    may take the place of another file.

    Raises UserError, before any work is done, if it cannot be drawn, or must not be written there.
    """
    wanted = [(o, p) for o, p in (("--html", html), ("--svg", still)) if p is not None]
    for option, path in wanted:
        if path.suffix.lower().lstrip(".") not in ENDINGS[option]:
            endings = " or .".join(ENDINGS[option])
            raise UserError(
                f"{option} {path} is to be written, and is not called like that",
                f"give it a name that ends with .{endings}",
                EXIT_USAGE,
            )
        if path.exists() and any(read.exists() and os.path.samefile(read, path) for read in inputs):
            raise UserError(
                f"{option} {path} is a recording that is read", "name another", EXIT_USAGE
            )
        refuse_file(path, force)
        dependencies.require(option, dependencies.DRAWING, "html")
    return bool(wanted)


def write(path: Path | None, force: bool, draw: Callable[[str], bytes]) -> None:
    """Draw a picture, of the kind that the path's ending names, into a file; None: not wanted.

    Raises UserError; there is a whole file then, or what was there before.
    """
    if path is None:
        return
    with new_file(path, force) as place:
        place.write(content := draw(path.suffix.lower().lstrip(".")))
    output.status(f"wrote {path}, {len(content) / 2**20:,.1f} MiB")
