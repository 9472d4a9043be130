# SPDX-License-Identifier: Apache-2.0
"""Views, made of sums of seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from balloontrace import driver_behaviour
from balloontrace.events import BALLOON_PAGE_BYTES, LOSSES
from balloontrace.live import view
from balloontrace.live.episodes import churn_of
from balloontrace.live.seconds import (
    KEPT,
    CallSum,
    Second,
    Standing,
    acks_of,
    calls_of,
    tasks_of,
)
from balloontrace.live.tally import SECOND_NS, Tally, section

if TYPE_CHECKING:
    from balloontrace.live.model import Model

MINUTE_S = 60
MOST_TASKS = 20
"""In a view: those that took most."""


def made(model: Model, now_s: float, at: Optional[int], zoom_s: int, columns: int) -> view.View:
    """The view of a model; see Model.view."""
    tally = model.tally
    state = model.state(now_s) if at is None else (view.TRACING, view.TRACING)
    if tally is None:
        return _nothing(model, now_s, state, zoom_s, columns)
    seconds, standing = _until(tally, at)
    guest = _guest(tally)
    return view.View(
        guest=guest,
        t_ns=standing.t_ns,
        seconds=(standing.t_ns - tally.begin_ns) / 1e9,
        wall_ns=_wall_ns(tally, standing.t_ns),
        live=at is None,
        size_pages=standing.size,
        target_pages=standing.target,
        share_of_ram=_share(guest, standing.size),
        driver=standing.driver,
        last_second=_flow(tally, seconds[-1:], 1.0),
        last_minute=_flow(tally, seconds[-MINUTE_S:], float(min(MINUTE_S, len(seconds)) or 1)),
        graph=_graph(tally, seconds, zoom_s, columns),
        progress=_progress(tally, standing, seconds[-MINUTE_S:]),
        tasks=_tasks(tally, seconds, at),
        calls=_calls(calls_of(seconds[-MINUTE_S:])),
        acks=_acks(seconds[-MINUTE_S:]),
        memory=standing.memory,
        pressure=standing.pressure,
        findings=standing.findings,
        losses=_losses(model),
        agreement=standing.agreement,
        stream=_stream(model, state, seconds, standing),
        host=_host(model, now_s, None if at is None else standing.t_ns),
    )


def _until(tally: Tally, at: Optional[int]) -> tuple[list[Second], Standing]:
    """The whole seconds up to a moment, and how things stood then."""
    seconds = list(tally.seconds)
    if at is None:
        return seconds, tally.standing()
    kept = [one for one in seconds if one.number <= at] or seconds[:1]
    standing = kept[-1].standing if kept else None
    return kept, standing or tally.standing()


def _nothing(
    model: Model, now_s: float, state: tuple[str, str], zoom_s: int, columns: int
) -> view.View:
    """Before anything came."""
    flow = view.Flow(None, None, 1.0)
    return view.View(
        guest=view.Guest(None, None, None, None, False),
        t_ns=None,
        seconds=None,
        wall_ns=None,
        live=True,
        size_pages=None,
        target_pages=None,
        share_of_ram=None,
        driver=None,
        last_second=flow,
        last_minute=flow,
        graph=view.Graph((), 1.0, 1),
        progress=view.Progress(0, 0, dict.fromkeys(view.OUT, 0), None, None, None, None, None),
        tasks=(),
        calls=(),
        acks=(),
        memory=view.Memory(None, None, None, None, None),
        pressure=view.Pressure(None, None),
        findings=(),
        losses=_losses(model),
        agreement=view.Agreement(None, "nothing came yet"),
        stream=view.Stream(model.name, *state, 0.0, 0.0, 0, model.following.bytes, model.saved_as),
        host=_host(model, now_s, None),
    )


def _host(model: Model, now_s: float, at_ns: Optional[int]) -> Optional[view.Host]:
    """What the host says now, or at a moment of the guest's clock."""
    header = model.tally.header if model.tally else {}
    return model.host.view(header, now_s, at_ns) if model.host else None


def _guest(tally: Tally) -> view.Guest:
    header = tally.header
    guest, balloon = section(header, "guest"), tally.balloon
    features, symbols = balloon.get("features"), section(balloon, "driver").get("symbols")
    behaviour = None
    if features is not None and symbols is not None:
        behaviour = driver_behaviour.promised(features, symbols)[0]
    return view.Guest(
        guest.get("hostname"),
        guest.get("kernel"),
        guest.get("memory_bytes"),
        behaviour,
        tally.counted,
    )


def _wall_ns(tally: Tally, t_ns: int) -> Optional[int]:
    clock = section(tally.header, "clock")
    then, wall = clock.get("monotonic_ns"), clock.get("realtime_ns")
    return None if then is None or wall is None else int(wall) + t_ns - int(then)


def _share(guest: view.Guest, size: Optional[int]) -> Optional[float]:
    if size is None or not guest.memory_bytes:
        return None
    return size * BALLOON_PAGE_BYTES / guest.memory_bytes


def _flow(tally: Tally, seconds: list[Second], span_s: float) -> view.Flow:
    if not seconds or not tally.tells_of_moves:
        return view.Flow(None, None, span_s)
    leaked = {cause: sum(one.leaked.get(cause, 0) for one in seconds) for cause in view.OUT}
    return view.Flow(
        sum(one.filled for one in seconds) / span_s,
        {cause: pages / span_s for cause, pages in leaked.items()},
        span_s,
    )


def _graph(tally: Tally, seconds: list[Second], zoom_s: int, columns: int) -> view.Graph:
    """Columns of the same seconds at each moment: one that is over does not change. There is
    nothing finer than a second: where there is room, it is wider, and the rest shows what was
    before."""
    columns = max(1, columns)
    wide, cells = -(-zoom_s // columns), max(1, columns // zoom_s)
    columns = min(columns // cells, -(-KEPT // wide))
    by_number = {one.number: one for one in seconds}
    end = (seconds[-1].number // wide + 1) * wide if seconds else 0
    begins = range(max(0, end - wide * columns), end, wide)
    shown = [
        _column([by_number[n] for n in range(b, b + wide) if n in by_number], b) for b in begins
    ]
    return view.Graph(tuple(shown), float(wide), cells)


def _column(seconds: list[Second], begin: int) -> view.Column:
    if not seconds:
        return view.Column(float(begin), None, None, None, None, None, None)
    last, count = seconds[-1].standing, len(seconds)
    by_reclaim = sum(one.leaked.get(c, 0) for one in seconds for c in ("shrinker", "oom"))
    return view.Column(
        float(begin),
        last.size if last else None,
        last.target if last else None,
        sum(one.filled for one in seconds) / count,
        sum(sum(one.leaked.values()) for one in seconds) / count,
        by_reclaim / count,
        float(sum(one.stands_still for one in seconds)),
    )


def _progress(tally: Tally, standing: Standing, minute: list[Second]) -> view.Progress:
    known = tally.tells_of_moves
    churn = standing.churn_ratio  # if that is not known, neither is any part of it
    still, longest = standing.still_ns, standing.longest_still_ns
    return view.Progress(
        inflated_pages=standing.inflated if known else None,
        deflated_pages=sum(standing.by_cause.values()) if known else None,
        by_cause=standing.by_cause if known else None,
        churn_ratio=churn,
        now_churn_ratio=None if churn is None else churn_of(one.part for one in minute),
        amplification=standing.amplification,
        no_progress_s=None if still is None else still / 1e9,
        longest_no_progress_s=None if longest is None else longest / 1e9,
    )


def _tasks(tally: Tally, seconds: list[Second], at: Optional[int]) -> tuple[view.Task, ...]:
    """Those of all time up to the moment: what came later is taken off."""
    found = {key: [*sums] for key, sums in tally.tasks.found.items()}
    if at is not None and seconds:
        later = [one for one in tally.seconds if one.number > seconds[-1].number]
        for key, (pages, calls) in tasks_of([*later, tally.second]).found.items():
            if key in found:
                found[key][0] -= pages
                found[key][1] -= calls
    minute = tasks_of(seconds[-MINUTE_S:]).found
    rows = [
        view.Task(_text(comm), pid, kind, cause, pages, calls, minute.get(key, [0, 0])[0])
        for key, (pages, calls) in found.items()
        for kind, comm, pid, cause in (key,)
        if calls > 0
    ]
    rows.sort(key=lambda row: (row.pages, row.calls), reverse=True)
    return tuple(rows[:MOST_TASKS])


def _text(comm: bytes) -> str:
    return comm.decode("utf-8", "surrogateescape")


def _calls(found: dict[str, CallSum]) -> tuple[view.Calls, ...]:
    paged = {"fill", "leak", "ack", "scan", "oom_notify", "migrate", "report", "hint", "reclaim"}
    rows = [
        view.Calls(
            kind, one.calls, one.pages if kind in paged else None, one.ns / 1e9,
            one.longest_ns / 1e9,
        )
        for kind, one in found.items()
    ]  # fmt: skip
    return tuple(sorted(rows, key=lambda row: row.total_s, reverse=True))


def _acks(seconds: list[Second]) -> tuple[view.Acks, ...]:
    return tuple(
        view.Acks(queue, one.calls, one.within_s(0.5), one.within_s(0.99), one.longest_ns / 1e9)
        for queue, one in sorted(acks_of(seconds).items(), reverse=True)
    )


def _losses(model: Model) -> view.Losses:
    following, trailer = model.following, model.trailer
    missed = model.tally.missed if model.tally else 0
    lost: Optional[int] = None
    if trailer is not None:
        counters: Any = section(trailer, "counters").values()
        lost = sum(int(one.get(name) or 0) for one in counters for name in LOSSES)
        lost -= sum(int(one.get("missed") or 0) for one in counters)
    return view.Losses(
        events=lost,
        missed=missed,
        left_out=None if trailer is None else trailer.get("left_out"),
        blocks=following.missing_blocks,
        damage_bytes=following.damage_bytes,
    )


def _stream(
    model: Model, state: tuple[str, str], seconds: list[Second], standing: Standing
) -> view.Stream:
    ends = [one.standing for one in seconds[-2:] if one.standing]
    events = bytes_ = 0
    if len(ends) == 2:
        span_s = max(1, ends[1].t_ns - ends[0].t_ns) / SECOND_NS
        events, bytes_ = (
            (getattr(ends[1], of) - getattr(ends[0], of)) / span_s for of in ("events", "bytes")
        )
    return view.Stream(
        model.name, *state, events, bytes_, standing.events, standing.bytes, model.saved_as
    )
