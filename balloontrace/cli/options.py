# SPDX-License-Identifier: Apache-2.0
"""Options that several verbs have."""

from __future__ import annotations

from typing import Any

import typer

from balloontrace.cli import output

COLOR: Any = typer.Option(output.Color.AUTO, "--color", help="When to use colours.")
SINCE: Any = typer.Option(
    None,
    "--since",
    metavar="TIME",
    help="Only from then on: seconds since the probes were attached (120, 10m, 2h), or the guest's "
    "wall clock (2026-11-26T18:25:30, in UTC unless it says otherwise; 18:25:30).",
    show_default=False,
)
HOST: Any = typer.Option(
    None,
    "--host",
    metavar="FILE",
    help="The host's view (balloontrace host record), to be laid beside the recording. One that "
    "is named as the recording is, but for .host.jsonl, is used by itself.",
    show_default=False,
)
UNTIL: Any = typer.Option(
    None, "--until", metavar="TIME", help="Only up to then, likewise.", show_default=False
)
