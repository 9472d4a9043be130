# SPDX-License-Identifier: Apache-2.0
"""A stream of bytes, put in order of time, summed up, and shown as it is at any moment of the last
quarter of an hour.

Time is that of the recording. `now_s` is time.monotonic() of who reads: it tells only that no block
comes.
"""

from __future__ import annotations

from typing import Any, Optional

from balloontrace.events import OPEN_DURATION
from balloontrace.live import snapshot
from balloontrace.live.host import HostSide
from balloontrace.live.tally import Tally
from balloontrace.live.view import CLOSED, ENDED, SILENT, SILENT_S, TRACING, View
from balloontrace.recording import layout
from balloontrace.recording.content import since
from balloontrace.recording.follow import Following, Part

ZOOMS_S = (60, 300, 900)
"""How far back the graph reaches: 1, 5 and 15 minutes."""

COLUMNS = 60

HELD_NS = 50_000_000
"""What has just come waits for so long of the recording's time: events stand in the order in which
calls returned on each CPU, and those of another may come later."""

SETTLED_S = 0.1
"""Nothing came for so long of the reader's time: what came before is all there is of it."""

_EVENT, _TARGET, _SAMPLE = range(3)
"""Rank of what is of the same nanosecond: what moved was there before a target was read."""


class Model:
    """What is known of one guest.

    name: of the stream; trailer: None until it came; failure: why it was closed, if it was not in
    order; host: what the host says of it, None if nobody said where that is.
    """

    def __init__(self, name: str, host: Optional[HostSide] = None) -> None:
        """name: of the stream, for people."""
        self.name, self.host = name, host
        self.trailer: Optional[dict[str, Any]] = None
        self.failure = ""
        self.saved_as: Optional[str] = None
        self.following = Following(name)
        self.tally: Optional[Tally] = None
        self._waiting: list[Any] = []  # of time, rank, and a sample or the fields of an event
        self._open: list[tuple[Any, ...]] = []
        self._early: list[Part] = []
        self._header: Optional[dict[str, Any]] = None
        self._newest_ns = 0
        self._fed_s: Optional[float] = None
        self._closed = False

    def feed(self, data: bytes, now_s: float) -> None:
        """Take what came next. Raises UserError if it is no recording, or too new a one."""
        self._fed_s = now_s
        self._take(self.following.take(data))
        self._settle(self._newest_ns - HELD_NS)

    def close(self, failure: str = "") -> None:
        """No more will come; failure: why, where that is not the stream's own end. Raises UserError
        if nothing of it can be read."""
        self._closed, self.failure = True, failure
        self._take(self.following.end())
        self._begin_at_any()
        self._finish()

    @property
    def seconds(self) -> Optional[range]:
        """Whole seconds since attach that `view` can be asked for; None: there are none yet."""
        kept = self.tally.seconds if self.tally else None
        return range(kept[0].number, kept[-1].number + 1) if kept else None

    def view(
        self,
        now_s: float,
        at: Optional[int] = None,
        zoom_s: int = ZOOMS_S[0],
        columns: int = COLUMNS,
    ) -> View:
        """The latest snapshot, or that of the end of one of `seconds`, or the one nearest to it;
        zoom_s: how far back the graph reaches, in so many columns."""
        self.settle(now_s)
        return snapshot.made(self, now_s, at, zoom_s, columns)

    def settle(self, now_s: float) -> None:
        """If nothing came for SETTLED_S, what came before is in order."""
        if not self._closed and self._fed_s is not None and now_s - self._fed_s >= SETTLED_S:
            self._settle(self._newest_ns)

    def state(self, now_s: float) -> tuple[str, str]:
        """Of the stream now (view.TRACING and so on), and the same for people."""
        if self.trailer is not None:
            return ENDED, f"ended: {self.trailer.get('reason') or 'reason not known'}"
        if self._closed:
            return CLOSED, self.failure or "the stream was closed before its end"
        if self._fed_s is None:
            return TRACING, "waiting for the first block"
        silent_s = now_s - self._fed_s
        if silent_s >= SILENT_S:
            return SILENT, f"no block for {silent_s:.0f} s"
        return TRACING, "tracing"

    # ---- in order ----

    def _take(self, parts: list[Part]) -> None:
        for part in parts:
            if part.kind == layout.HEADER:
                self._begin(part.content)
            elif self.tally is None:
                self._early.append(part)
                if part.kind == layout.SAMPLE and self._header is not None:
                    self._begin_at_any()
            else:
                self._add(part)

    def _begin(self, header: dict[str, Any]) -> None:
        if self._header is not None:  # of the next segment: what ended was the one before it
            self.trailer = None
            return
        self._header = header
        attached_ns = header.get("attached_ns")
        if attached_ns is not None:
            self._begin_at(attached_ns)

    def _begin_at_any(self) -> None:
        """Begin where the first sample is, of a recording that does not say when it began."""
        if self.tally is None and self._header is not None:
            samples = [part.content for part in self._early if part.kind == layout.SAMPLE]
            self._begin_at(min((one["t_ns"] for one in samples if "t_ns" in one), default=0))

    def _begin_at(self, begin_ns: int) -> None:
        self.tally = Tally(self.name, self._header or {}, begin_ns)
        self._newest_ns = begin_ns
        early, self._early = self._early, []
        for part in early:
            self._add(part)

    def _add(self, part: Part) -> None:
        """Let one part wait until it is in order."""
        if part.kind == layout.EVENTS:
            self._add_events(part.content)
        elif part.kind == layout.SAMPLE:
            t_ns = part.content.get("t_ns")
            if t_ns is not None:
                self._waiting.append((t_ns, _SAMPLE, part.content))
                self._newest_ns = max(self._newest_ns, t_ns)
        else:
            self.trailer = part.content

    def _add_events(self, rows: bytes) -> None:
        decoding = self.tally.decoding if self.tally else None
        if decoding is None:
            return
        newest_ns, add = self._newest_ns, self._waiting.append
        kinds = decoding.kinds
        for event in decoding.events(rows):
            took_ns = event[1]
            if took_ns == OPEN_DURATION:
                self._open.append(event)
                continue
            kind = kinds.get(event[6])
            t_ns = event[0] if kind == "target" else event[0] + took_ns
            add((t_ns, _TARGET if kind == "target" else _EVENT, event))
            if t_ns > newest_ns:
                newest_ns = t_ns
        self._newest_ns = newest_ns

    def _settle(self, until_ns: int) -> None:
        """Sum up what is not newer."""
        tally, waiting = self.tally, self._waiting
        if tally is None or not waiting:
            return
        tally.bytes = self.following.bytes
        waiting.sort(key=_order)
        done = 0
        for item in waiting:
            if item[0] > until_ns:
                break
            done += 1
            if item[1] == _SAMPLE:
                tally.sample(item[0], item[2])
            else:
                tally.event(item[0], item[2])
        del waiting[:done]

    def _finish(self) -> None:
        """Sum up all, and the calls that were open at the end, which come last."""
        tally = self.tally
        if tally is None:
            return
        self._settle(self._newest_ns)
        trailer = self.trailer or {}
        ended_ns = max(trailer.get("ended_ns") or 0, tally.now_ns)
        for event in self._open:
            tally.event(ended_ns, event)
        self._open = []
        if self.trailer is not None:
            begun = tally.header.get("begun")
            if begun is not None:
                self.trailer = since(begun, self.trailer)
            tally.trailer(self.trailer)


def _order(item: Any) -> tuple[int, int]:
    """What comes first: stable, for events of the same nanosecond stand in order of return."""
    return item[0], item[1]
