# SPDX-License-Identifier: Apache-2.0
"""What of attaching is not left to the kernel that runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Forced(NamedTuple):
    """What a test wants tried alone: rungs: seam -> number of its rung, from 1; means: a name;
    compiled: programs that are compiled here and now."""

    rungs: Mapping[str, int] = {}
    means: str = ""
    compiled: bool = False
