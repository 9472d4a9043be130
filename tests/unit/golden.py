# SPDX-License-Identifier: Apache-2.0
"""`make golden`: writes down what reports of the recordings in tests/data say, as JSON, and what
screens of them show.

A change of an analysis shows there what it changes, and that it changes nothing else.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from balloontrace.analysis.json import report_json
from balloontrace.analysis.report import build
from tests.unit.live import screens

DATA = Path(__file__).parents[1] / "data"
RECORDINGS = sorted(DATA.glob("*.btrace"))
GOLDEN = DATA / "reports.json.gz"


def reported(recording: Path) -> dict[str, Any]:
    """The report of a recording, but for where that is."""
    content: dict[str, Any] = json.loads(report_json(build(str(recording))))
    del content["path"]
    return content


def known() -> dict[str, Any]:
    """Recording -> what was written down."""
    content: dict[str, Any] = json.loads(gzip.decompress(GOLDEN.read_bytes()))
    return content


def main() -> None:
    """Write all of it down, the same bytes for the same reports and screens."""
    content = {recording.stem: reported(recording) for recording in RECORDINGS}
    GOLDEN.write_bytes(gzip.compress(json.dumps(content, sort_keys=True).encode(), mtime=0))
    screens.write()


if __name__ == "__main__":
    main()
