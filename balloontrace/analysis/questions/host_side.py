# SPDX-License-Identifier: Apache-2.0
"""What the host wanted, was told, and got of what the guest gave: both sides' records."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from balloontrace.analysis.base import Question, Result, Section, answered
from balloontrace.analysis.fields import Field, Table, Unit
from balloontrace.analysis.trace.balloon_size import SizeCurve, known_curve
from balloontrace.analysis.trace.columns import Ints
from balloontrace.analysis.trace.gaps import driver_gaps
from balloontrace.analysis.trace.host_view import HostTarget, HostView
from balloontrace.analysis.trace.trace import FOREVER, MOVES, Trace
from balloontrace.recording.host_clock import WALL_ERROR_NS, Moment
from balloontrace.recording.host_lines import STATISTICS, VCPUS

NOT_GIVEN = "the host's view (report --host)"

FREED_SHARE = 0.9
"""Of what the host's memory fell by under a target: when so much had, it is said to have."""

_GiB = "bytes of the hypervisor's process, huge pages among them"


class HostSide(Question):
    """Each target from both sides, and what the guest's pages were worth to the host."""

    section = Section(
        "host_side",
        "The host's side",
        35,
        "what the host wanted, was told and got: both sides' records (report --host)",
        (
            Field("path", Unit.TEXT, "of the host's view", never_null=True),
            Field("hypervisor", Unit.TEXT, "and its version"),
            Field("memory_bytes", Unit.BYTES, "of the guest, with nothing in the balloon"),
            Field("clock_pairs", Unit.NUMBER, "of the host's and the guest's; 0: not compared"),
            Field("clock_jumps", Unit.NUMBER, "between them: the guest's clock stood still"),
            Field(
                "clock_error_s",
                Unit.SECONDS,
                "either way, at most, of the lags below; null: not known, as the clocks were not "
                "compared",
            ),
            Field("by_wall_clocks", Unit.FLAG, "only those tie the two", never_null=True),
            Field("causal", Unit.FLAG, "no effect comes before its cause; null: nothing to see"),
            Field("moved_pages", Unit.PAGES, "in and out, by the guest"),
            Field("net_pages", Unit.PAGES, "in less out, by the guest"),
            Field(
                "freed_bytes",
                Unit.BYTES,
                "by which the host's memory fell under targets to inflate, in all",
            ),
            Field("resident_first_bytes", Unit.BYTES, f"when the host's view began: {_GiB}"),
            Field("resident_last_bytes", Unit.BYTES, "when it ended"),
            Field("locked_bytes", Unit.BYTES, "of its memory, at most, that cannot be given back"),
            Field("hugetlb_bytes", Unit.BYTES, "of huge pages, at most"),
            Field("vfio", Unit.FLAG, "a device is passed through, which pins the guest's memory"),
            Field("statistics_oldest_s", Unit.SECONDS, "their age at most, while the host asked"),
            Field("statistics_interval_s", Unit.SECONDS, "from one question to the next"),
            Field("vcpus_ran_s", Unit.SECONDS, "of all of the guest's processors"),
            Field("vcpus_waited_s", Unit.SECONDS, "in which they wanted a CPU of the host"),
            Field("stopped_s", Unit.SECONDS, "in which the host did not let the guest run"),
            Field(
                "unanswered_s",
                Unit.SECONDS,
                "the longest time in which the hypervisor did not answer who asked it",
            ),
            Field("driver_absent_s", Unit.SECONDS, "in which the guest had no driver"),
        ),
        (
            Table(
                "targets",
                (
                    Field("target_pages", Unit.PAGES, title="target"),
                    Field("sent", Unit.NUMBER, "how often in a row", title="sent"),
                    Field(
                        "set_s",
                        Unit.MOMENT,
                        "by the guest's clock; null: not known, or it stood before",
                        title="set at",
                    ),
                    Field("error_s", Unit.SECONDS, "of that, and so of the lags", title="error"),
                    Field("driver_there", Unit.FLAG, "when it was set"),
                    Field("traced", Unit.FLAG, "false: a driver was there meanwhile that was not"),
                    Field("noticed_s", Unit.SECONDS, "to the interrupt", title="noticed\nafter"),
                    Field("read_s", Unit.SECONDS, "until the worker reads it", title="read\nafter"),
                    Field(
                        "reached_s", Unit.SECONDS, "until the guest has it", title="reached\nafter"
                    ),
                    Field(
                        "told_s",
                        Unit.SECONDS,
                        "until the host is told so, by the host's clock alone",
                        title="told\nafter",
                    ),
                    Field("inflated_pages", Unit.PAGES, title="in"),
                    Field("deflated_pages", Unit.PAGES, title="out"),
                    Field("resident_before_bytes", Unit.BYTES, _GiB, title="host's memory\nbefore"),
                    Field("resident_after_bytes", Unit.BYTES, "at its end", title="after"),
                    Field(
                        "freed_s",
                        Unit.SECONDS,
                        f"until {FREED_SHARE:.0%} of the fall, by the host's clock alone",
                        title="fallen\nafter",
                    ),
                ),
                "targets",
            ),
        ),
        shown=answered,
        first_screen=answered,
    )
    optional = ("fill", "leak", "target", "notice")

    def run(self, trace: Trace) -> Result:
        """Everything that both sides told; None is what one of them did not tell."""
        view = trace.entire.host
        if view is None:
            return Result(self.name, missing=[NOT_GIVEN])
        both = _Both(trace, view)
        rows = [both.row(number) for number in range(len(view.targets))]
        within = [row for row in rows if row["set_s"] is None or both.is_within(row["set_s"])]
        scalars = {
            **_facts(view),
            **both.clocks(within),
            **both.pages(within, _larger_ones(rows)),
            **_memory(view),
            **_statistics(view),
            **both.processors(),
        }
        notes = [] if view.clock.pairs else [_NOT_COMPARED]
        if view.clock.by_wall_clocks:
            notes = [_BY_WALL_CLOCKS]
        return Result(self.name, scalars, {"targets": within}, notes=notes)


_NOT_COMPARED = (
    "the clocks of host and guest were not compared (host record --ssh): when the guest noticed, "
    "read and reached a target is not known by the host's clock"
)


def _facts(view: HostView) -> dict[str, Any]:
    begin = view.lines.begin
    said = " ".join(filter(None, (begin.get("hypervisor"), begin.get("version"))))
    facts = {name: begin.get(name) for name in ("memory_bytes", "vfio")}
    return {"path": view.lines.path, "hypervisor": said or None, **facts}


def _memory(view: HostView) -> dict[str, Any]:
    """Of the hypervisor's process."""
    _, resident = view.resident
    lines = view.lines.of("memory")

    def most(name: str) -> int | None:
        return max((line[name] for line in lines if name in line), default=None)

    return {
        "resident_first_bytes": int(resident[0]) if len(resident) else None,
        "resident_last_bytes": int(resident[-1]) if len(resident) else None,
        "locked_bytes": most("locked_bytes"),
        "hugetlb_bytes": most("hugetlb_bytes"),
    }


def _statistics(view: HostView) -> dict[str, Any]:
    polled = [line for line in view.lines.of(STATISTICS) if line.get("polling_interval_s")]
    ages = [float(line["age_s"]) for line in polled if "age_s" in line]
    return {
        "statistics_oldest_s": max(ages, default=None),
        "statistics_interval_s": float(polled[-1]["polling_interval_s"]) if polled else None,
    }


def _larger_ones(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The targets that are larger than the one before, which may be before the window."""
    first = [row for row in rows[:1] if row["target_pages"]]
    pairs = pairwise(rows)
    return first + [row for last, row in pairs if row["target_pages"] > last["target_pages"]]


_BY_WALL_CLOCKS = (
    "the clocks of host and guest were not compared (host record --ssh): the wall clocks alone tie "
    f"them, taken to be within {WALL_ERROR_NS / 1e9:g} s of each other; if not both are kept by "
    "NTP, the lags of the guest may be wrong by anything"
)


class _Both:
    """A trace and the host's view of its guest."""

    def __init__(self, trace: Trace, view: HostView) -> None:
        self._trace, self._view = trace, view
        self._unit = trace.pages_per_page
        self._curve: SizeCurve | None = known_curve(trace.entire)
        self._read = _calls(trace.entire, "target", "start_ns", "asked")
        self._noticed = _calls(trace.entire, "notice", "start_ns")
        self._moves = [_by_end(trace.entire, kind) for kind in MOVES]
        self._violated = self._looked = False

    def is_within(self, moment_s: float) -> bool:
        """Whether what the host did then is about what the trace has."""
        begin_s = self._trace.seconds(self._trace.begin_ns)
        return begin_s <= moment_s <= self._trace.seconds(self._trace.end_ns)

    def row(self, number: int) -> dict[str, Any]:
        """One target. What its lags are from is the middle of when it can have been set."""
        targets, clock = self._view.targets, self._view.clock
        target, last = targets[number], number + 1 == len(targets)
        following = None if last else targets[number + 1]
        until_ns = self._view.last_ns() if following is None else _since(following)
        middle_ns = (_since(target) + target.by_ns) // 2
        at, end = self._view.set_at(target), clock.at(until_ns)
        until = FOREVER if last else end.ns + end.error_ns if end else None
        before = self._view.set_at(targets[number - 1]) if number else None
        in_guest = self._in_guest(target, before, at, until)
        at_host = self._at_host(target, middle_ns, until_ns)
        if at is not None:
            self._compare(at, in_guest["reached_s"], at_host["told_s"])
        return {
            "target_pages": target.pages,
            "sent": target.sent,
            "set_s": self._trace.seconds(at.ns) if at else None,
            "error_s": at.error_ns / 1e9 if at else None,
            "driver_there": self._driver_there(at) if at else None,
            **in_guest,
            **at_host,
        }

    def _compare(self, at: Moment, reached_s: float | None, told_s: float | None) -> None:
        """Note whether the host was told before the guest can have been there.

        The driver tells the host at the end of update_balloon_size_func, as whose return a fill is
        often traced: that the last call had begun is all that is sure then.
        """
        if reached_s is None or told_s is None:
            return
        self._looked = True
        reached_ns = at.ns + round(reached_s * 1e9)
        begun = [
            int(starts[place])
            for starts, ends in self._moves
            if (place := int(np.searchsorted(ends, reached_ns - 1))) < len(ends)
        ]
        begun_ns = min([reached_ns, *begun])
        self._violated |= at.ns + round(told_s * 1e9) + at.error_ns < begun_ns

    def _driver_there(self, at: Moment) -> bool | None:
        """Whether the guest had a driver then; None: it came or went at about that time."""
        around = (at.ns - at.error_ns, at.ns + at.error_ns)
        absences = _absences(self._trace)
        absent = {any(since <= ns < until for since, until in absences) for ns in around}
        return not absent.pop() if len(absent) == 1 else None

    def _in_guest(
        self, target: HostTarget, before: Moment | None, at: Moment | None, until: int | None
    ) -> dict[str, Any]:
        """When the guest noticed, read and reached it, after it was set; pages that it moved until
        the next one. before: when the one before was set. None: not known."""
        found: dict[str, Any] = dict.fromkeys(
            ("traced", "noticed_s", "read_s", "reached_s", "inflated_pages", "deflated_pages")
        )
        if at is None or until is None:
            return found
        from_ns = at.ns - at.error_ns
        untraced = (gap.untraced_ns for gap in driver_gaps(self._trace.entire))
        found["traced"] = not any(
            from_ns < end_ns and begin_ns < until for begin_ns, end_ns in filter(None, untraced)
        )
        read_ns = self._read_at(target.pages, before, from_ns, until)
        if self._noticed is not None:
            told = self._noticed["start_ns"]
            told = told[(told >= from_ns) & (told < until)]
            told = told[told <= read_ns] if read_ns is not None else told
            found["noticed_s"] = _after(int(told[0]), at) if len(told) else None
        if read_ns is not None:
            found["read_s"] = _after(read_ns, at)
        if self._curve is not None:
            steps = slice(self._curve.steps_until(from_ns), self._curve.steps_until(until))
            if found["traced"]:
                moved = self._curve.moved(steps)
                found |= {name: moved[name] for name in ("inflated_pages", "deflated_pages")}
            reached_ns = _reached(self._curve, steps, target.pages, self._unit)
            found["reached_s"] = None if reached_ns is None else _after(reached_ns, at)
        return found

    def _read_at(self, pages: int, before: Moment | None, from_ns: int, until: int) -> int | None:
        """When the worker read this target first. One that it read just before it was set, and
        when another one stood, shows that the clocks are not what they seem."""
        if self._read is None:
            return None
        starts = self._read["start_ns"][self._read["asked"] == pages]
        later = starts[(starts >= from_ns) & (starts < until)]
        if len(later):
            self._looked = True
            return int(later[0])
        early_ns = from_ns - _NEAR_NS
        if before is not None:  # until then the one before that stood, which may have been the same
            early_ns = max(early_ns, before.ns + before.error_ns)
        self._violated |= bool(((starts > early_ns) & (starts < from_ns)).any())
        return None

    def _at_host(self, target: HostTarget, set_ns: int, until_ns: int) -> dict[str, Any]:
        """When the host was told that it is reached; its memory before, and at the end."""
        times, told = self._view.actual
        there = np.abs(told - target.pages) < self._unit
        reached = (times >= set_ns) & (times <= until_ns) & there
        first = int(times[reached][0]) if reached.any() else None
        found: dict[str, Any] = {
            "told_s": None if first is None else (first - set_ns) / 1e9,
            "resident_before_bytes": None,
            "resident_after_bytes": None,
            "freed_s": None,
        }
        if target.after_ns is None:
            return found | {"told_s": None}
        moments, resident = self._view.resident
        start, under = self._resident_at(set_ns), (moments > set_ns) & (moments <= until_ns)
        if start is None or not under.any():
            return found
        end = int(resident[under][-1])
        found |= {"resident_before_bytes": start, "resident_after_bytes": end}
        if start > end:
            fallen = resident[under] <= start - FREED_SHARE * (start - end)
            found["freed_s"] = (int(moments[under][fallen][0]) - set_ns) / 1e9
        return found

    def _resident_at(self, set_ns: int) -> int | None:
        """The host's memory when a target was set: of the sample before it if that is no old one,
        as the guest may have touched much since, else of the next, if the balloon did not move
        until then."""
        moments, resident = self._view.resident
        times, told = self._view.actual
        interval_ns = round(float(self._view.lines.begin.get("interval_s") or 0.0) * 1e9)
        place = int(np.searchsorted(moments, set_ns, side="right"))
        if place and set_ns - moments[place - 1] <= max(_FRESH_NS, 2 * interval_ns):
            return int(resident[place - 1])
        if place == len(moments) or moments[place] - set_ns > _FRESH_NS:
            return None
        first = max(0, int(np.searchsorted(times, set_ns, side="right")) - 1)
        meanwhile = told[first : int(np.searchsorted(times, moments[place], side="right"))]
        unmoved = len(meanwhile) > 1 and len(set(meanwhile.tolist())) == 1
        return int(resident[place]) if unmoved else None

    def clocks(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """How well the two clocks are known. Without order, no lag is worth anything."""
        clock = self._view.clock
        causal = False if self._violated else True if self._looked else None
        if causal is False:
            for row in rows:
                row |= dict.fromkeys(("noticed_s", "read_s", "reached_s"))
        errors = [row["error_s"] for row in rows if row["error_s"] is not None]
        return {
            "clock_pairs": clock.pairs,
            "clock_jumps": clock.jumps,
            "clock_error_s": max(errors, default=None) if clock.pairs else None,
            "by_wall_clocks": clock.by_wall_clocks,
            "causal": causal,
        }

    def pages(self, rows: list[dict[str, Any]], larger: list[dict[str, Any]]) -> dict[str, Any]:
        """What the guest moved, and what of it the host has. larger: targets to inflate."""
        moved = None
        if self._curve is not None:
            curve = self._curve
            if self._trace.is_part:
                curve = curve.between(self._trace.after_ns, self._trace.until_ns)
            moved = curve.moved(slice(0, len(curve.time_ns)))
        falls = [
            max(0, row["resident_before_bytes"] - row["resident_after_bytes"])
            for row in rows
            if row in larger and row["resident_before_bytes"] is not None
        ]
        into, out = (moved["inflated_pages"], moved["deflated_pages"]) if moved else (None, None)
        return {
            "moved_pages": None if into is None or out is None else into + out,
            "net_pages": None if into is None or out is None else into - out,
            "freed_bytes": sum(falls) if falls else None,
        }

    def processors(self) -> dict[str, Any]:
        """Whether the host let the guest run, from the recording's begin to its end."""
        lines = [
            line
            for line in self._view.lines.of(VCPUS)
            if {"cpu_ns", "waited_ns"} <= line.keys() and self._is_meanwhile(line["t_ns"])
        ]
        # A processor that was plugged or unplugged takes what it ran with it.
        pairs = [pair for pair in pairwise(lines) if len({one.get("threads") for one in pair}) == 1]
        known = bool(pairs) and len(pairs) == len(lines) - 1
        stops = [
            (min(end, self._view.last_ns()) - start) / 1e9
            for start, end in self._view.clock.stops
            if self._is_meanwhile(start) and self._is_meanwhile(end)
        ]
        # Without a common clock they may all be of before and after the recording.
        told = self._view.lines.tells("state") and not (stops and not self._view.clock.pairs)
        return {
            "vcpus_ran_s": _grown_s(pairs, "cpu_ns") if known else None,
            "vcpus_waited_s": _grown_s(pairs, "waited_ns") if known else None,
            "stopped_s": sum(stops) if told else None,
            "unanswered_s": self._unanswered_s(),
            "driver_absent_s": _absent_s(self._trace),
        }

    def _unanswered_s(self) -> float | None:
        """The longest time between two answers, beyond what was waited on purpose."""
        times = [ns for ns in self._view.actual[0].tolist() if self._is_meanwhile(ns)]
        gaps_s = [(later - earlier) / 1e9 for earlier, later in pairwise(times)]
        waited_s = float(self._view.lines.begin.get("interval_s") or 0.0)
        return max(0.0, max(gaps_s) - waited_s) if gaps_s else None

    def _is_meanwhile(self, host_ns: int) -> bool:
        """Whether a moment of the host's clock is within the trace; True if that is not known."""
        at = self._view.clock.at(host_ns)
        return at is None or self._trace.begin_ns <= at.ns <= self._trace.end_ns


def _since(target: HostTarget) -> int:
    """From when on it is known to stand, by the host's clock."""
    return target.by_ns if target.after_ns is None else target.after_ns


_NEAR_NS = 10_000_000_000
_FRESH_NS = 1_000_000_000


def _by_end(trace: Trace, kind: str) -> tuple[Ints, Ints]:
    """Start and end of each call of a kind, in order of end."""
    calls = trace.calls(kind)
    order = np.argsort(np.asarray(calls["end_ns"]), kind="stable")
    return np.asarray(calls["start_ns"])[order], np.asarray(calls["end_ns"])[order]


def _calls(trace: Trace, kind: str, *columns: str) -> dict[str, Ints] | None:
    """Columns of all calls of a kind, in order of start; None if they were not recorded."""
    if not trace.recorded(kind):
        return None
    frame = trace.events(kind, *columns).sort_values("start_ns", kind="stable")
    return {name: frame[name].to_numpy() for name in columns}


def _after(moment_ns: int, set_at: Moment) -> float:
    return (moment_ns - set_at.ns) / 1e9


def _reached(curve: SizeCurve, steps: slice, pages: int, unit: int) -> int | None:
    """When the size first was, or passed, so many pages in these steps. A guest whose pages are of
    `unit` balloon pages can come no closer than within one."""
    before, sizes = curve.size_after(steps.start), curve.size[steps]
    if abs(before - pages) < unit or not len(sizes):
        return None
    there = np.flatnonzero(sizes > pages - unit if pages > before else sizes < pages + unit)
    return int(curve.time_ns[steps][there[0]]) if len(there) else None


def _grown_s(pairs: list[tuple[dict[str, Any], dict[str, Any]]], name: str) -> float:
    return float(sum(max(0, later[name] - earlier[name]) for earlier, later in pairs)) / 1e9


def _absences(trace: Trace) -> list[tuple[int, int]]:
    """From when on and until when the guest had no driver, each time in the whole recording."""
    gaps = driver_gaps(trace.entire)
    return [(gap.start_ns, gap.end_ns if gap.seen_ns is None else gap.seen_ns) for gap in gaps]


def _absent_s(trace: Trace) -> float:
    """Of what is looked at."""
    begin_ns, end_ns = trace.begin_ns, trace.end_ns
    clipped = (
        min(until_ns, end_ns) - max(since_ns, begin_ns) for since_ns, until_ns in _absences(trace)
    )
    return sum(max(0, span_ns) for span_ns in clipped) / 1e9
