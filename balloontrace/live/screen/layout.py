# SPDX-License-Identifier: Apache-2.0
"""What stands where on the screen: lines of text of one moment, for any size of terminal.

What matters most comes first, and is what a small terminal shows: size and target, what moves, what
is wrong. What is not known is said so, and never 0.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from balloontrace.driver_behaviour import DESCRIPTIONS
from balloontrace.live.screen import graph
from balloontrace.live.screen.lines import (
    BAD,
    DIM,
    GOOD,
    NOT_KNOWN,
    PLAIN,
    STRONG,
    TITLE,
    WARN,
    Line,
    Part,
    fitted,
    mib,
    pages,
    part,
    percent,
    ratio,
    seconds,
    size,
    spread,
    width_of,
)
from balloontrace.live.view import OUT, TRACING, Fired, Flow, Host, Task, View

TABLES = ("causes", "tasks", "calls", "acks")
"""What the table can be about, in the order of the key that changes it."""

SORTS = {"tasks": ("all", "last minute"), "calls": ("time", "calls", "longest")}
"""By what its rows can be sorted."""

LEAST_WIDTH, LEAST_HEIGHT = 40, 8
_GRAPH_ROWS, _MOST_GRAPH_ROWS = 5, 20
_BUSY_SHARE = 0.1
"""Of a time: PSI and churn from there on are worth a colour."""

KEYS = "space pause  ←→ walk  +- zoom  tab table  o sort  s save  ? help  q quit"

HELP = (
    "space        stop the view; what comes is read and kept meanwhile",
    "left, right  a second back, forward; page up, page down: ten; home, end: all",
    "+, -         less time in the graph, more: 1, 5, 15 minutes",
    "tab          the table: causes, tasks, calls, waits for the host",
    "o            sort the table by another column",
    "s            save what was seen as a recording",
    "?            this, and back; Ctrl-L: paint all of it again",
    "q, Ctrl-C    quit",
    "",
    "In the graph the balloon's size is filled, ─ is the target, · was not seen,",
    "! is time without progress. Pages are 4 KiB. `balloontrace report` on what is",
    "saved says the same, and why.",
)


@dataclass(frozen=True)
class Shown:
    """What the keys have chosen. said: what was just done, for people."""

    table: str = TABLES[0]
    sort: int = 0
    paused: bool = False
    help: bool = False
    said: str = ""


def columns_for(width: int) -> int:
    """Columns of the graph in so many of the terminal."""
    return max(10, width - graph.LABEL)


def lines(view: View, shown: Shown, width: int, height: int) -> list[Line]:
    """The screen: exactly `height` lines of `width` columns."""
    if width < LEAST_WIDTH or height < LEAST_HEIGHT:
        return _cut([_size(view, width), _said(view, shown)], width, height)
    if shown.help:
        helped = [_head(view, width), (Part(""),), *((Part(text),) for text in HELP)]
        return [*_cut(helped, width, height - 1), fitted((Part(KEYS, DIM),), width)]
    top = [_head(view, width), _state(view, shown, width), _size(view, width)]
    if view.t_ns is None:  # of nothing there are no causes, waits and findings, and no lack of them
        return [*_cut([*top, *_host(view)], width, height - 1), fitted((Part(KEYS, DIM),), width)]
    top += [*_host(view), *_flows(view)]
    top += [_progress(view), *_findings(view, width)]
    bottom = [_memory(view), _acks(view)]
    room = height - len(top) - len(bottom) - 1
    table = _table(view, shown)
    rows = min(len(table), max(0, min(room // 3, 12)) if room < 30 else 12)
    drawn = _drawn(view, room - rows)
    table = table[:rows] + [()] * max(0, room - rows - len(drawn))
    body = [*top, *drawn, *table, *bottom]
    return [*_cut(body, width, height - 1), fitted((Part(KEYS, DIM),), width)]


def _cut(some: Sequence[Line], width: int, height: int) -> list[Line]:
    """Those that there is room for, each in the width, and empty ones below."""
    filled = [*some, *[()] * max(0, height - len(some))]
    return [fitted(line, width) for line in filled[:height]]


def _head(view: View, width: int) -> Line:
    guest = view.guest
    said = f"{guest.hostname or 'the guest'}"
    if guest.kernel:
        said += f"  Linux {guest.kernel}"
    if guest.memory_bytes:
        said += f"  {size(guest.memory_bytes)}"
    clock = ""
    if view.wall_ns is not None:
        clock = datetime.fromtimestamp(view.wall_ns // 10**9, UTC).strftime("%H:%M:%SZ")
    return spread((Part("balloontrace live  ", TITLE), part(said, STRONG)), (Part(clock),), width)


def _state(view: View, shown: Shown, width: int) -> Line:
    """Where it comes from, and whether it can be believed."""
    stream = view.stream
    words = "PAUSED" if shown.paused else stream.said
    style = WARN if shown.paused or stream.state != TRACING else GOOD
    at = "" if view.seconds is None else f"  at {view.seconds:,.0f} s"
    if shown.paused and not view.live:
        at += ", walked back"
    left = [part(words, style), Part(at)]
    if shown.said:
        return spread([*left, part(f"  {shown.said}", STRONG)], (), width)
    rate = f"  {stream.events_per_s:,.0f} events/s"
    if stream.bytes_per_s:  # a file that was there already came at once
        rate += f" {size(stream.bytes_per_s)}/s"
    left.append(Part(rate, DIM))
    trust = _trust(view)
    if width_of(left) + width_of(trust) >= width:  # what can be believed comes before how fast
        del left[-1]
    return spread(left, trust, width)


def _trust(view: View) -> Line:
    losses, agrees = view.losses, view.agreement.agrees
    if losses.some:
        lost = [
            f"{number:,} {what}"
            for number, what in (
                (losses.events or 0, "lost"),
                (losses.missed, "returns missed"),
                (losses.left_out or 0, "left out"),
                (losses.blocks, "blocks missing"),
                (losses.damage_bytes, "bytes damaged"),
            )
            if number
        ]
        first = Part(", ".join(lost) + "  ", BAD)
    else:
        first = Part("no loss seen  ", PLAIN)
    words = {True: "equals vmstat", False: "NOT AS VMSTAT", None: "vmstat not compared yet"}
    style = {True: GOOD, False: BAD, None: DIM}
    return (first, Part(words[agrees], style[agrees]))


def _size(view: View, width: int) -> Line:
    share = "" if view.share_of_ram is None else f", {percent(view.share_of_ram)} of RAM"
    driver = "" if view.driver in (None, "attached") else f"  DRIVER {view.driver.upper()}"
    parts = [
        Part("balloon "),
        Part(f"{mib(view.size_pages)}", STRONG),
        Part(f" ({pages(view.size_pages)} pages{share})  target "),
        Part(mib(view.target_pages), STRONG),
        Part("" if view.target_pages is None else f" ({pages(view.target_pages)})"),
        Part(driver, BAD),
    ]
    behaviour = view.guest.behaviour
    if behaviour in DESCRIPTIONS and width >= 120:
        parts.append(part(f"  {behaviour}", DIM))
    return tuple(parts)


def _host(view: View) -> list[Line]:
    """What the host says, in two lines, if it is asked."""
    host = view.host
    if host is None:
        return []
    told, style = _told(host)
    first = [
        Part("host    ", DIM),
        Part(f"target {mib(host.target_pages)}, actual "),
        Part(mib(host.actual_pages), STRONG),
        Part(f" ({pages(host.actual_pages)} pages)" if host.actual_pages is not None else ""),
        part(f"  {told}", style),
    ]
    second = [Part(f"        memory {size(host.resident_bytes)}")]
    if host.gained_bytes is not None:
        way = "gained" if host.gained_bytes >= 0 else "lost"
        second.append(Part(f", {way} {size(abs(host.gained_bytes))}", STRONG))
    if host.statistics_age_s is not None:
        asks = "" if host.polling_interval_s else ", not asked for"
        second.append(Part(f"  statistics {host.statistics_age_s:,.0f} s old{asks}"))
    return [tuple(first), tuple(second)]


def _told(host: Host) -> tuple[str, str]:
    """Of the guest's state and the file's, and how loud."""
    said = [one for one in (host.state, host.said) if one]
    return ", ".join(said), PLAIN if said in ([], ["running"]) else WARN


def _flows(view: View) -> list[Line]:
    """What goes in and out, by cause, in the last second and the last minute."""
    return [_flow("last s  ", view.last_second), _flow("last min", view.last_minute)]


def _flow(name: str, flow: Flow) -> Line:
    into, out = flow.inflated, flow.out
    by = ""
    if flow.deflated:
        causes = [(cause, flow.deflated.get(cause, 0.0)) for cause in OUT]
        by = ", ".join(f"{cause} {mib(rate)}" for cause, rate in causes if rate)
    words = f"{mib(into)}/s in, {mib(out)}/s out" if into is not None else NOT_KNOWN
    return (Part(f"{name} ", DIM), Part(words), Part(f": {by}" if by else ""))


def _progress(view: View) -> Line:
    p = view.progress
    stuck = p.no_progress_s
    parts = [
        Part("churn "),
        Part(ratio(p.churn_ratio), _loud((p.churn_ratio or 0) > _BUSY_SHARE)),
        Part(f" (now {ratio(p.now_churn_ratio)})  amplification "),
        Part("not known" if p.amplification is None else f"{p.amplification:,.2f}x"),
        Part("  stuck "),
        Part("-" if stuck is None else seconds(stuck), _loud((stuck or 0) >= 1)),
        Part(f" (longest {seconds(p.longest_no_progress_s)})"),
    ]
    return tuple(parts)


def _loud(is_loud: bool) -> str:
    return WARN if is_loud else PLAIN


def _findings(view: View, width: int) -> list[Line]:
    """What is wrong now, then what was; always two lines, so that nothing jumps."""
    ordered = sorted(view.findings, key=lambda found: (not found.firing, -found.since_s))
    if len(ordered) == 1:
        return _in_two(_finding(ordered[0]), width)
    told = [_finding(found) for found in ordered[:2]]
    if not told:
        told = [(Part("no known pathology so far", DIM),)]
    if len(ordered) > 2:
        told[-1] = (*told[-1], Part(f"  and {len(ordered) - 2} more", DIM))
    return [*told, *[()] * (2 - len(told))]


def _in_two(line: Line, width: int) -> list[Line]:
    """The last part of a line goes on in a second one."""
    *first, last = line
    words = textwrap.wrap(last.text, max(20, width - width_of(first)))
    rest = " ".join(words[1:])
    return [(*first, Part(words[0] if words else "", last.style)), (Part(f"  {rest}"),)]


def _finding(found: Fired) -> Line:
    if found.firing:
        when, style = f"since {found.since_s:,.0f} s", BAD
    else:
        when, style = f"{found.since_s:,.0f} to {found.until_s:,.0f} s", DIM
    mark = "! " if found.firing else "  "
    return (Part(f"{mark}{found.id} ", style), Part(f"{when}: ", style), part(found.sentence))


def _drawn(view: View, room: int) -> list[Line]:
    """The graph, in so many lines."""
    columns = view.graph.columns
    if room < 3 or not columns:
        return []
    small = [
        graph.flow_row(view.graph, "in", [column.inflated for column in columns]),
        graph.flow_row(view.graph, "out", [column.deflated for column in columns]),
        graph.progress_row(view.graph),
    ]
    rows = min(_MOST_GRAPH_ROWS, room - len(small) - 1)
    if rows < 2:
        return graph.size_rows(view.graph, room)
    return [*graph.size_rows(view.graph, rows), *small, graph.axis(view.graph)]


def _table(view: View, shown: Shown) -> list[Line]:
    makers = {"causes": _causes, "tasks": _tasks, "calls": _calls, "acks": _ack_rows}
    by = SORTS.get(shown.table, ("",))
    rows = makers[shown.table](view, by[shown.sort % len(by)])
    return [*rows]


def _row(*cells: tuple[str, int]) -> str:
    """Cells in columns; a width below 0 is aligned left."""
    return " ".join(
        f"{text[:-width]:<{-width}}" if width < 0 else f"{text:>{width}}" for text, width in cells
    )


def _title(text: str) -> Line:
    return (Part(text, TITLE),)


def _causes(view: View, _: str) -> list[Line]:
    out, inflated = view.progress.by_cause, view.progress.inflated_pages
    if out is None or inflated is None:
        return [_title("what moves is not known: no counters of the balloon were read")]
    total = sum(out.values())
    head = _row(("cause", -12), ("pages out", 14), ("MiB", 12), ("share", 8))
    rows = [
        (
            Part(
                _row(
                    (cause, -12),
                    (f"{out.get(cause, 0):,}", 14),
                    (mib(out.get(cause, 0)), 12),
                    (percent(out.get(cause, 0) / total), 8),
                )
            ),
        )
        for cause in sorted(OUT, key=lambda cause: -out.get(cause, 0))
        if out.get(cause, 0)
    ]
    into = (Part(f"in {inflated:,} pages", DIM),)
    return [_title(head), *rows, into] if total else [_title("nothing went out so far"), into]


def _tasks(view: View, by: str) -> list[Line]:
    """Who reclaims."""
    recent = by == "last minute"
    ordered = sorted(
        view.tasks, key=lambda task: -(task.last_minute_pages if recent else task.pages)
    )
    head = _row(
        ("who reclaims", -22), ("pid", 8), ("by", -9), ("pages", 12), ("last min", 12), ("calls", 9)
    )
    rows = [
        (
            part(_who(task)[:22].ljust(22)),
            Part(
                " "
                + _row(
                    (str(task.pid) if task.pid else "-", 8),
                    (task.cause, -9),
                    (f"{task.pages:,}", 12),
                    (f"{task.last_minute_pages:,}", 12),
                    (f"{task.calls:,}", 9),
                )
            ),
        )
        for task in ordered
    ]
    return [_title(head), *rows] if rows else [_title("nobody reclaimed from the balloon so far")]


def _who(task: Task) -> str:
    """Name and kind, once if they are the same."""
    named = task.comm and task.comm != task.kind
    return f"{task.comm[:15]} {task.kind}" if named else task.kind


def _calls(view: View, by: str) -> list[Line]:
    keys = {
        "time": lambda call: -call.total_s,
        "calls": lambda call: -call.calls,
        "longest": lambda call: -call.longest_s,
    }
    head = _row(
        ("call, last minute", -18), ("calls", 10), ("pages", 12), ("in all", 10), ("longest", 10)
    )
    rows = [
        (
            Part(
                _row(
                    (call.kind, -18),
                    (f"{call.calls:,}", 10),
                    ("-" if call.pages is None else f"{call.pages:,}", 12),
                    (seconds(call.total_s), 10),
                    (seconds(call.longest_s), 10),
                )
            ),
        )
        for call in sorted(view.calls, key=keys[by])
    ]
    return [_title(head), *rows] if rows else [_title("no call in the last minute")]


def _ack_rows(view: View, _: str) -> list[Line]:
    head = _row(
        ("wait for the host", -18), ("waits", 10), ("half", 10), ("99 of 100", 10), ("longest", 10)
    )
    rows = [
        (
            Part(
                _row(
                    (ack.queue, -18),
                    (f"{ack.calls:,}", 10),
                    (f"≤{seconds(ack.median_s)}", 10),
                    (f"≤{seconds(ack.p99_s)}", 10),
                    (seconds(ack.longest_s), 10),
                )
            ),
        )
        for ack in view.acks
    ]
    return [_title(head), *rows] if rows else [_title("no wait for the host in the last minute")]


def _memory(view: View) -> Line:
    memory, pressure = view.memory, view.pressure
    total = "" if memory.total is None else f" of {size(memory.total)}"
    swap = ""
    if memory.swap_total:
        free = memory.swap_free
        used = None if free is None else memory.swap_total - free
        swap = f", swap used {size(used)}"
    loud = _loud((pressure.full or 0) >= _BUSY_SHARE)
    return (
        Part(f"available {size(memory.available)}{total}, free {size(memory.free)}{swap}"),
        Part(f"  PSI {percent(pressure.some)}, full {percent(pressure.full)}", loud),
    )


def _acks(view: View) -> Line:
    if not view.acks:
        return (Part("host: no waits in the last minute", DIM),)
    told = ", ".join(
        f"{ack.queue} half ≤{seconds(ack.median_s)}, max {seconds(ack.longest_s)}"
        for ack in view.acks
    )
    return (Part(f"acks {told}"),)


def _said(view: View, shown: Shown) -> Line:
    """For a terminal that is too small for more."""
    firing = [found.id for found in view.findings if found.firing]
    return (part(", ".join(firing) or view.stream.said, BAD if firing else PLAIN),)
