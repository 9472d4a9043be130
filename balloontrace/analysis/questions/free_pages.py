# SPDX-License-Identifier: Apache-2.0
"""Free memory that the guest tells the host of without a balloon: reporting and hinting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from balloontrace.analysis.base import Question, Result, Section, answered, not_recorded
from balloontrace.analysis.fields import Field, Table, Unit
from balloontrace.analysis.trace.hint_runs import ENDS, hint_runs
from balloontrace.analysis.trace.samples import UNREAD
from balloontrace.analysis.trace.trace import Ints, Trace, known_pages, section
from balloontrace.events import BALLOON_PAGE_BYTES, UNKNOWN_PAGES


def _tells(result: Result) -> bool:
    """Whether there is more to say than that free pages were offered."""
    reporting = result.scalars.get("reporting")
    return bool(reporting and reporting["open"]) or bool(result.tables.get("hint_runs"))


_REPORTING = (
    Field("calls", Unit.NUMBER),
    Field("refused", Unit.NUMBER, "calls that the host refused"),
    Field("pages", Unit.PAGES, "reported"),
    Field("total_s", Unit.SECONDS),
    Field("share", Unit.SHARE, "of the time, in which a report was under way"),
    Field("most_pages_per_minute", Unit.PAGES, "in the 60 s in which most were reported"),
    Field("most_from_s", Unit.MOMENT, "when these began"),
    Field("pages_per_call", Unit.NUMBER, "of those that returned, the mean, rounded"),
    Field("median_s", Unit.SECONDS, "of those that returned"),
    Field("longest_s", Unit.SECONDS, "of those that returned"),
    Field("longest_at_s", Unit.MOMENT, "when that one began"),
    Field("open", Unit.NUMBER, "had not returned at the end"),
    Field("open_at_s", Unit.MOMENT, "when the first of those began"),
    Field("open_s", Unit.SECONDS, "for how long that had been open"),
    Field("open_pages", Unit.PAGES, "in the blocks of those"),
    Field("order", Unit.NUMBER, "blocks of 2^order kernel pages and more are reported"),
    Field("worker_runs", Unit.NUMBER, "of the kernel's worker, which looks for free blocks"),
    Field("worker_s", Unit.SECONDS, "in those, reports included"),
    Field("least_free_pages", Unit.PAGES, "MemFree in the samples; null: not sampled"),
    Field("most_free_pages", Unit.PAGES, "likewise"),
)

_RUN = (
    Field("start_s", Unit.MOMENT, "the first block was lent", "at s"),
    Field("lending_s", Unit.SECONDS, "until all were", "lending\ntook"),
    Field("lent_pages", Unit.PAGES, "to the host", "lent"),
    Field("returned_pages", Unit.PAGES, "when the host had done", "taken\nback"),
    Field("reclaimed_pages", Unit.PAGES, "before that, by the shrinker", "by re-\nclaim"),
    Field("end_s", Unit.MOMENT, title="until s"),
    Field("ended", Unit.TEXT, "how; null: not known", "ended", words=ENDS),
)


class FreePages(Question):
    """Free page reporting, which the host may take at any time, and free page hinting, which lends
    the host what it need not migrate."""

    section = Section(
        "free_pages",
        "Free pages",
        120,
        "free page reporting and free page hinting",
        (
            Field("reporting_offered", Unit.FLAG, "by the device; null: not known"),
            Field("reporting", _REPORTING),
            Field(
                "hinting",
                (
                    Field("calls", Unit.NUMBER),
                    Field("lent_pages", Unit.PAGES, "lent to the host"),
                    Field("returned_pages", Unit.PAGES, "taken back"),
                    Field("total_s", Unit.SECONDS),
                ),
            ),
        ),
        (Table("hint_runs", _RUN, "runs of hinting", span=("start_s", "end_s")),),
        shown=answered,
        first_screen=_tells,
    )
    optional = ("report", "hint")

    def run(self, trace: Trace) -> Result:
        """Scalars `reporting` and `hinting`: calls, balloon pages, seconds of wall clock; None if
        not recorded, pages None if a call's could not be seen. Table `hint_runs`: see
        hint_runs.py."""
        if not any(trace.recorded(kind) for kind in self.optional):
            lacking = not_recorded(trace, self.optional)
            return Result(self.name, {"reporting_offered": _offered(trace)}, missing=lacking)
        if not any(trace.negotiated(kind) for kind in self.optional):
            lacking = [f"{kind} (not negotiated)" for kind in self.optional]
            return Result(self.name, {"reporting_offered": _offered(trace)}, missing=lacking)
        scalars = {
            "reporting_offered": _offered(trace),
            "reporting": _reporting(trace),
            "hinting": _hinting(trace),
        }
        return Result(self.name, scalars, {"hint_runs": _runs(trace)})


def _offered(trace: Trace) -> bool | None:
    """Whether there can be reports at all; None if there can, and none would have been seen."""
    if not trace.negotiated("report"):
        return False
    return True if trace.recorded("report") else None


def _reporting(trace: Trace) -> dict[str, Any] | None:
    if not (trace.recorded("report") and trace.negotiated("report")):
        return None
    calls = trace.events("report")
    # What the host refused is not reported; a call that is still open may yet be, and of one whose
    # return was not seen it is not known.
    returned = calls[~calls["open"] & ~trace.marked(calls, "flags", "flags", "missed")]
    refused, total_s = returned["done"] == 0, _spent_s(trace, "report")
    pages, time_s = _pages(returned), (trace.end_ns - trace.begin_ns) / 1e9
    mean = round(pages / len(returned)) if pages is not None and len(returned) else None
    return {
        "calls": len(calls),
        "refused": int(refused.sum()),
        "pages": pages,
        "total_s": total_s,
        "share": total_s / time_s if time_s > 0 else None,
        **_busiest_minute(trace, returned),
        "pages_per_call": mean,
        **_latencies(trace, returned),
        **_open(trace, calls[calls["open"]]),
        "order": trace.balloon.get("reporting_order"),
        **_worker(trace),
        **_free(trace),
    }


def _worker(trace: Trace) -> dict[str, Any]:
    """What looking for free blocks cost, page_reporting_process of mm/page_reporting.c."""
    if not trace.recorded("reporting"):
        return dict.fromkeys(("worker_runs", "worker_s"))
    runs = trace.events("reporting")
    return {"worker_runs": len(runs), "worker_s": _seconds(runs)}


_MINUTE_NS = 60_000_000_000


def _busiest_minute(trace: Trace, returned: pd.DataFrame) -> dict[str, Any]:
    """When most pages were reported within a minute, by when the reports returned."""
    if returned.empty or (returned["done"] == UNKNOWN_PAGES).any():
        return dict.fromkeys(("most_pages_per_minute", "most_from_s"))
    calls = returned.sort_values("end_ns", kind="stable")
    ends_ns = calls["end_ns"].to_numpy()
    pages = np.concatenate(([0], np.cumsum(known_pages(calls))))
    sums = pages[np.searchsorted(ends_ns, ends_ns + _MINUTE_NS)] - pages[:-1]
    busiest = int(sums.argmax())
    return {
        "most_pages_per_minute": int(sums[busiest]),
        "most_from_s": trace.seconds(calls["start_ns"].iloc[busiest]),
    }


def _latencies(trace: Trace, returned: pd.DataFrame) -> dict[str, Any]:
    """How long reports took that were seen from entry to return."""
    whole = returned[~trace.marked(returned, "flags", "flags", "partial", "missed")]
    if whole.empty:
        return dict.fromkeys(("median_s", "longest_s", "longest_at_s"))
    took_ns = whole["duration_ns"].to_numpy()
    longest = int(took_ns.argmax())
    return {
        "median_s": float(np.median(took_ns)) / 1e9,
        "longest_s": int(took_ns[longest]) / 1e9,
        "longest_at_s": trace.seconds(whole["start_ns"].iloc[longest]),
    }


def _open(trace: Trace, calls: pd.DataFrame) -> dict[str, Any]:
    """The reports that had not returned when the recording ended."""
    if calls.empty:
        return {"open": 0, **dict.fromkeys(("open_at_s", "open_s", "open_pages"))}
    asked = calls["asked"]
    return {
        "open": len(calls),
        "open_at_s": trace.seconds(calls["start_ns"].min()),
        "open_s": int(calls["duration_ns"].max()) / 1e9,
        "open_pages": None if (asked == UNKNOWN_PAGES).any() else int(asked.sum()),
    }


def _free(trace: Trace) -> dict[str, Any]:
    """The least and the most free memory that was sampled."""
    column: Ints = trace.samples.column("meminfo", "MemFree")
    known = column[column != UNREAD] // BALLOON_PAGE_BYTES
    if not len(known):
        return dict.fromkeys(("least_free_pages", "most_free_pages"))
    return {"least_free_pages": int(known.min()), "most_free_pages": int(known.max())}


def _hinting(trace: Trace) -> dict[str, Any] | None:
    if not (trace.recorded("hint") and trace.negotiated("hint")):
        return None
    calls = trace.events("hint")
    back = trace.marked(calls, "flags", "flags", "returned")
    lent, returned = calls[~back], calls[back]
    # A rung that cannot tell the two apart shows no call as one that took blocks back.
    unseen = not len(returned) and bool(section(trace.seams, "hint").get("loses"))
    return {
        "calls": len(calls),
        "lent_pages": _pages(lent[~lent["open"]]),
        "returned_pages": None if unseen else _pages(returned),
        "total_s": _seconds(calls),
    }


def _runs(trace: Trace) -> list[dict[str, Any]]:
    """The table of hinting's runs; empty if it was not recorded."""
    if not (trace.recorded("hint") and trace.negotiated("hint")):
        return []
    return [
        {
            "start_s": trace.seconds(run.start_ns),
            "lending_s": (run.lent_ns - run.start_ns) / 1e9,
            "lent_pages": run.lent_pages,
            "returned_pages": run.returned_pages,
            "reclaimed_pages": run.reclaimed_pages,
            "end_s": trace.seconds(run.end_ns),
            "ended": run.ended,
        }
        for run in hint_runs(trace)
    ]


def _pages(calls: pd.DataFrame) -> int | None:
    """The pages of all calls; None if those of one could not be seen."""
    if (calls["done"] == UNKNOWN_PAGES).any():
        return None
    return int(known_pages(calls).sum())


def _spent_s(trace: Trace, kind: str) -> float:
    """In which a call of this kind was under way, within what is looked at; one whose return was
    not seen counts for nothing."""
    calls = trace.entire.events(kind)
    seen = calls[~trace.marked(calls, "flags", "flags", "missed")]
    ends = seen["end_ns"].clip(upper=trace.end_ns)
    return int((ends - seen["start_ns"].clip(lower=trace.begin_ns)).clip(lower=0).sum()) / 1e9


def _seconds(calls: pd.DataFrame) -> float:
    return int(calls["duration_ns"].sum()) / 1e9
