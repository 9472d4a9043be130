# SPDX-License-Identifier: Apache-2.0
"""How times are written on the command line."""

from __future__ import annotations

import re

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST_S = 1e9


def seconds_in(text: str) -> float | None:
    """Seconds in '90', '90s', '1.5m', '2h' or '500ms'; None if it is none of these."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", text, re.ASCII)
    seconds = float(match[1]) * _UNITS[match[2]] if match else _LONGEST_S
    return seconds if seconds < _LONGEST_S else None
