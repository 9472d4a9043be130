# SPDX-License-Identifier: Apache-2.0
"""A stream of blocks, summed up second by second, of which views are made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Optional

from balloontrace.live.view import View

ZOOMS_S = (60.0, 300.0, 900.0)
"""How far back the graph reaches: 1, 5 and 15 minutes."""

COLUMNS = 60


class Model:
    """What is known of one guest. Time is that of the recording; `now_s`, where it is asked for, is
    time.monotonic() of who reads, and only tells that no block comes."""

    def __init__(self, name: str) -> None:
        """name: of the stream, for people."""

    def feed(self, blocks: Iterable[Any], now_s: float) -> None:
        """Take blocks and damage in order, as recording/follow.py gives them. Raises UserError for
        a format that is too new."""
        raise NotImplementedError

    def close(self, failure: str = "") -> None:
        """No more will come. failure: why, if not for a trailer."""
        raise NotImplementedError

    @property
    def seconds(self) -> Optional[range]:
        """Whole seconds since attach that `view` can be asked for; None before anything came."""
        raise NotImplementedError

    def view(
        self,
        now_s: float,
        at: Optional[int] = None,
        zoom_s: float = ZOOMS_S[0],
        columns: int = COLUMNS,
    ) -> View:
        """The latest snapshot, or that of the end of a second of `seconds`; zoom_s: how far back
        the graph reaches, in so many columns."""
        raise NotImplementedError
