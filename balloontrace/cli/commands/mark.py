# SPDX-License-Identifier: Apache-2.0
"""balloontrace mark: put words into the recordings that are under way in this guest."""

from __future__ import annotations

from typing import List, Optional

import typer

from balloontrace.cli import output
from balloontrace.escape import visible


def command(
    words: List[str] = typer.Argument(
        ..., metavar="TEXT...", help="What happens now; cut to 200 characters."
    ),
    pid: Optional[int] = typer.Option(
        None, "--pid", help="Only in the recording of this process.", show_default=False
    ),
) -> None:
    """Mark this moment in every recording that was begun with `record --mark`.

    Needs root, in the guest. Reports, timelines and exports show the words at that time.
    """
    from balloontrace.tracers.record.marks import send

    text = " ".join(words)
    for recorder in send(text, pid):
        output.result(f"marked in the recording of pid {recorder}: {visible(text)}")
