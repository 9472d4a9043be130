# SPDX-License-Identifier: Apache-2.0
"""A view as a line of text, for logs and slow lines: at most 80 columns, no colour, ASCII."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from typing import Optional

from balloontrace.escape import visible
from balloontrace.events import BALLOON_PAGE_BYTES
from balloontrace.live.view import TRACING, Host, View

WIDTH = 80
HEAD_EVERY = 40
"""Lines from one head to the next."""

UNKNOWN, NOTHING = "?", "-"
"""What stands for what is not known, and for what there is none of."""

HEAD = (
    "       s    MiB  target    in/s   out/s for       still churn  avail  full\n"
    "                          pages   pages               s     %    MiB     %"
)


class Lines:
    """Text of one view after the other: a line each, and what is new of it besides."""

    def __init__(self) -> None:
        self._until_head = 0
        self._said: dict[str, str] = {}
        self._firing: set[tuple[str, float]] = set()
        self._host_said: Optional[str] = None

    def of(self, view: View) -> str:
        """The lines of the next view, without the last newline."""
        lines = []
        if not self._until_head:
            lines += [*self._guest(view), HEAD]
            self._until_head = HEAD_EVERY
        self._until_head -= 1
        lines.append(line(view))
        if view.host is not None:
            said = host_line(replace(view.host, statistics_age_s=None))  # that grows by itself
            if said != self._host_said:
                lines.append(host_line(view.host))
            self._host_said = said
        lines += [wrapped for said in self._news(view) for wrapped in _wrapped(said)]
        return "\n".join(lines)

    @staticmethod
    def _guest(view: View) -> list[str]:
        guest = view.guest
        named = [visible(part) for part in (guest.hostname, guest.kernel) if part]
        if guest.memory_bytes:
            named.append(f"{guest.memory_bytes >> 20:,} MiB")
        named.append(f"gives back by: {guest.behaviour or 'not known'}")
        return _wrapped(f"# {', '.join(named)}")

    def _news(self, view: View) -> list[str]:
        """What was not said before."""
        news = []
        for one in view.findings:
            key = (one.id, one.since_s)
            if one.firing and key not in self._firing:
                news.append(f"! {one.id} since {one.since_s:.0f} s: {one.sentence}")
                self._firing.add(key)
            elif not one.firing and key in self._firing:
                news.append(f"! {one.id} was last true at {one.until_s:.0f} s")
                self._firing.discard(key)
        told = {
            "driver": f"# driver: {visible(view.driver or 'not known')}",
            "stream": f"# {visible(view.stream.said)}" if view.stream.state != TRACING else "",
            "host": _host_said(view),
            "losses": _losses(view),
            "agreement": f"# {view.agreement.sentence}"
            if view.agreement.agrees is not None
            else "",
        }
        news += [said for what, said in told.items() if said and said != self._said.get(what)]
        self._said.update({what: said for what, said in told.items() if said})
        return news


def line(view: View) -> str:
    """One second in WIDTH columns."""
    out = view.last_second.deflated
    causes = sorted((pages, cause) for cause, pages in (out or {}).items() if pages)
    cause = causes[-1][1] if causes else (UNKNOWN if out is None else NOTHING)
    progress = view.progress
    still = NOTHING if progress.no_progress_s is None else f"{progress.no_progress_s:.1f}"
    return " ".join(
        (
            _right(None if view.seconds is None else f"{view.seconds:.1f}", 8),
            _right(_mib(view.size_pages), 6),
            _right(_mib(view.target_pages), 7),
            _right(_whole(view.last_second.inflated), 7),
            _right(_whole(view.last_second.out), 7),
            f"{cause:<8}",
            _right(still, 6),
            _right(_percent(progress.now_churn_ratio), 5),
            _right(_bytes_mib(view.memory.available), 6),
            _right(_percent(view.pressure.full), 5),
        )
    ).rstrip()[:WIDTH]


def host_line(host: Host) -> str:
    """What the host says, its sizes below those of the guest, in WIDTH columns."""
    sizes = f"{_right(_mib(host.actual_pages), 6)} {_right(_mib(host.target_pages), 7)}"
    parts = [f"has {_bytes_mib(host.resident_bytes) or UNKNOWN}"]
    if host.gained_bytes is not None:
        way = "gained" if host.gained_bytes >= 0 else "lost"
        parts.append(f"{way} {abs(host.gained_bytes) >> 20}")
    if host.statistics_age_s is not None:
        parts.append(f"stats {host.statistics_age_s:.0f} s old")
    if host.state:
        parts.append(visible(host.state))
    return f"    host {sizes}  {', '.join(parts)}"[:WIDTH]


def _host_said(view: View) -> str:
    said = view.host.said if view.host else ""
    return f"# the host's view: {visible(said)}" if said else ""


def _losses(view: View) -> str:
    losses = view.losses
    if not losses.some:
        return ""
    parts = {
        "events lost": losses.events,
        "returns missed": losses.missed,
        "events left out for a slow reader": losses.left_out,
        "blocks missing": losses.blocks,
        "bytes damaged": losses.damage_bytes,
    }
    return "# " + ", ".join(f"{number:,} {what}" for what, number in parts.items() if number)


def _wrapped(said: str) -> list[str]:
    return textwrap.wrap(said, WIDTH - 2, subsequent_indent="  ", break_on_hyphens=False)


def _right(text: Optional[str], width: int) -> str:
    return (UNKNOWN if text is None else text).rjust(width)


def _whole(number: Optional[float]) -> Optional[str]:
    return None if number is None else f"{number:.0f}"


def _mib(pages: Optional[int]) -> Optional[str]:
    return None if pages is None else f"{pages * BALLOON_PAGE_BYTES >> 20}"


def _bytes_mib(number: Optional[int]) -> Optional[str]:
    return None if number is None else f"{number >> 20}"


def _percent(share: Optional[float]) -> Optional[str]:
    return None if share is None else f"{share * 100:.0f}"
