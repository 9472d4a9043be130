# SPDX-License-Identifier: Apache-2.0
"""Which host's view a command reads beside a recording."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from balloontrace.recording.host_lines import named_as


def host_views(file: Path, host: Optional[Path]) -> list[Path]:
    """The one that was given, else the one that is named as the recording is; none if there is
    none."""
    view = host or named_as(file)
    return [view] if view else []
