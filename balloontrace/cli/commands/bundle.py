# SPDX-License-Identifier: Apache-2.0
"""balloontrace bundle: write the one file for guests."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from balloontrace import bundle
from balloontrace.cli import output
from balloontrace.destination import new_file


def command(
    out: Path = typer.Option(Path(bundle.NAME), "-o", "--output", help="The file to write."),
    force: bool = typer.Option(False, "-f", "--force", help="Overwrite an existing file."),
) -> None:
    """Write one file that records in any guest: it needs Python 3.9 there, and nothing else.

    It has `record`, `watch`, `live`, `doctor` and `mark`. Copy it to the guest, and there, as root:

    python3 balloontrace-record.pyz record -o slow.btrace
    """
    content = bundle.made()
    with new_file(out, force) as file:
        file.write(content)
        os.fchmod(file.fileno(), 0o755)  # it tells nothing of a guest, and is to be run
    output.status(f"wrote {out}: {len(content) / 1024:.0f} KiB")
