# SPDX-License-Identifier: Apache-2.0
"""Writing the pictures of `report` and `compare` to files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from balloontrace.analysis import dependencies
from balloontrace.cli import output
from balloontrace.errors import EXIT_USAGE, UserError

KINDS = ("svg", "png")
"""Kinds of still picture, told by the file's ending."""


def check(html: Path | None, still: Path | None) -> bool:
    """Whether a picture is wanted at all.

    Raises UserError, before any work is done, if it cannot be drawn.
    """
    if still is not None and still.suffix.lower().lstrip(".") not in KINDS:
        raise UserError(
            f"--svg {still}: what kind of picture this is to be is not clear",
            "give it a name that ends with .svg or .png",
            EXIT_USAGE,
        )
    for option, path in (("--html", html), ("--svg", still)):
        if path is not None:
            dependencies.require(option, dependencies.DRAWING, "html")
    return html is not None or still is not None


def write(path: Path | None, draw: Callable[[str], bytes]) -> None:
    """Draw a picture, of the kind that the path's ending names, into a file; None: not wanted."""
    if path is None:
        return
    content = draw(path.suffix.lower().lstrip("."))
    try:
        path.write_bytes(content)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None
    output.status(f"wrote {path}, {len(content) / 2**20:,.1f} MiB")
