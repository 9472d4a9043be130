# SPDX-License-Identifier: Apache-2.0
"""balloontrace mark: put words into the recordings that are under way in this guest."""

from __future__ import annotations

from typing import List, Optional

from balloontrace.cli import output
from balloontrace.cli.verbs import Option, Verb, Words
from balloontrace.escape import visible


def run(words: List[str], pid: Optional[int], dump: bool) -> None:
    """Put `words` into the recording of process `pid`, or every one; dump: `watch` is to leave its
    last minutes. Raises UserError."""
    from balloontrace.tracers.record.marks import send

    text = " ".join(words)
    for recorder in send(text, pid, dump):
        output.result(f"marked in the recording of pid {recorder}: {visible(text)}")


VERB = Verb(
    "mark",
    "Mark this moment in every recording that was begun with `record --mark`, and for `watch`.\n\n"
    "Needs root, in the guest. Reports, timelines and exports show the words at that time.",
    run,
    (
        Option("pid", ("--pid",), "Only in the recording of this process.", int),
        Option(
            "dump",
            ("--dump",),
            "Have `watch` leave its last minutes as a recording, too.",
            bool,
            False,
        ),
    ),
    words=Words("words", "TEXT...", "What happens now; cut to 200 characters.", required=True),
)
