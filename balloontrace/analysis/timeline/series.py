# SPDX-License-Identifier: Apache-2.0
"""What the pictures have in common: the curves as arrays, and how each series looks.

Colours are those of Okabe and Ito, which people with a colour vision deficiency can tell apart.
None stands alone: filled series differ in pattern too, lines in dash, and events have lanes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from balloontrace.analysis.base import Result
from balloontrace.analysis.compare import main_inflation
from balloontrace.analysis.text.writer import count, seconds
from balloontrace.analysis.timeline.picture import Picture
from balloontrace.escape import visible
from balloontrace.events import BALLOON_PAGE_BYTES

Floats = npt.NDArray[np.float64]

MIB = 2**20
PAGES_PER_MIB = MIB // BALLOON_PAGE_BYTES


@dataclass(frozen=True)
class Style:
    """How a series looks. light, dark: its colour on a light and on a dark ground; pattern: over
    a filled area, as matplotlib calls it; dash: of a line."""

    label: str
    light: str
    dark: str
    pattern: str = ""
    dash: str = "solid"


SIZE = Style("balloon size", "#0072b2", "#56b4e9")
TARGET = Style("target", "#303030", "#e6e6e6", dash="dashed")
TOLD = Style("host: actual", "#009e73", "#2fd0a5", dash="dotted")
RESIDENT = Style("host: resident memory", "#cc79a7", "#dd94bd")
NO_PROGRESS = Style("no progress for 1 s or more", "#d55e00", "#ff9a4d", "\\")
GAP = Style("driver not traced", "#808080", "#a0a0a0", "x")
IN = Style("in: fill", "#0072b2", "#56b4e9")
OUT = {
    "host": Style("out: host", "#8a8a8a", "#9c9c9c"),
    "shrinker": Style("out: shrinker", "#d55e00", "#f0752b", "/"),
    "oom": Style("out: OOM notifier", "#e69f00", "#e69f00", "x"),
    "remove": Style("out: driver removed", "#cc79a7", "#cc79a7", "."),
    "freeze": Style("out: suspend", "#009e73", "#1fbf93", "-"),
    "unknown": Style("out: cause unknown", "#c9bb00", "#f0e442", "+"),
}
SOME = Style("some tasks stalled", "#e69f00", "#f0b840", dash="solid")
FULL = Style("all tasks stalled (full)", "#d55e00", "#f0752b", "/")
RECLAIM = {
    "refaults": Style("refaults", "#d55e00", "#f0752b"),
    "swapped_in": Style("swapped in", "#0072b2", "#56b4e9", dash="dashed"),
    "swapped_out": Style("swapped out", "#cc79a7", "#dd94bd", dash="dotted"),
}
FREE = Style("free", "#009e73", "#2fd0a5")
AVAILABLE = Style("available", "#0072b2", "#56b4e9", dash="dashed")
LANES = {
    "no_progress": Style("no progress", "#d55e00", "#ff9a4d"),
    "sleep": Style("Out of puff", "#cc79a7", "#dd94bd"),
    "oom_notify": Style("OOM notifier", "#e69f00", "#e69f00"),
    "oom_kill": Style("OOM kill", "#d00000", "#ff6b6b"),
    "gaps": GAP,
}
"""Events of the picture from top to bottom, each in a lane of its own."""


STEPS = ("size", "target", "host_actual")
"""The step functions that share a panel."""

WORDS = Style("mark", "#6a3d9a", "#b79adf", dash="dotted")
WORDS_CHARACTERS, MOST_LABELS, LABEL_LINES = 28, 20, 4
"""Of a label in a picture, how many there are, and in how many lines: more would cover what they
are about."""


@dataclass(frozen=True)
class Lane:
    """One kind of event: spans as (start, end), marks as rows of the timeline, and in words what
    there is; empty: nothing to draw."""

    kind: str
    said: str
    spans: list[tuple[float, float]]
    marks: list[dict[str, Any]]


@dataclass(frozen=True)
class Scene:
    """One recording to be drawn: `origin_s` is the moment that stands at 0; side: `before`,
    `after`, or empty if it is alone."""

    picture: Picture
    side: str = ""
    origin_s: float = 0.0

    @property
    def timeline(self) -> Result:
        """What is drawn."""
        return self.picture.timeline

    @property
    def bin_s(self) -> float:
        """Length of an interval."""
        return float(self.timeline.scalars["bin_s"])

    @property
    def begin_s(self) -> float:
        """When the recording begins on the picture's axis."""
        return float(self.timeline.scalars["begin_s"]) - self.origin_s

    @property
    def end_s(self) -> float:
        """When the recording ends on the picture's axis."""
        return float(self.timeline.scalars["end_s"]) - self.origin_s

    @property
    def title(self) -> str:
        """Which recording this is: side, driver, kernel and file, fit to print."""
        guest = self.picture.report.results["guest"].scalars
        driver = guest["driver_behaviour"] or "not known"
        path = str(self.picture.report.recording.scalars["path"]).rsplit("/", 1)[-1]
        facts = self.picture.report.recording.scalars
        part = "" if facts["since_s"] is None else ", {since_s:,.1f} to {until_s:,.1f} s"
        said = f"Linux {guest['kernel']}, balloon driver: {driver}, {path}{part.format(**facts)}"
        return visible(f"{self.side}: {said}" if self.side else said)

    @property
    def trust(self) -> str:
        """How far the picture can be trusted, in short."""
        facts = self.picture.report.recording.scalars
        lost = facts["lost_events"]
        agrees = self.picture.report.results["reconciliation"].scalars["agrees"]
        said = {
            True: "totals agree with /proc/vmstat",
            False: "totals DISAGREE with /proc/vmstat",
            None: "totals could not be checked against /proc/vmstat",
        }[agrees]
        whole = "complete" if facts["complete"] else "NOT COMPLETE"
        losses = "losses unknown" if lost is None else f"{count(lost)} events lost"
        return f"{whole}, {losses}, {said}"

    @property
    def sound(self) -> bool:
        """Whether nothing speaks against the numbers."""
        facts = self.picture.report.recording.scalars
        agrees = self.picture.report.results["reconciliation"].scalars["agrees"]
        return bool(facts["complete"] and not facts["lost_events"] and agrees)

    def lacks(self, part: str) -> str:
        """Why a part of the picture is empty: what was not recorded; empty if it was."""
        return visible(str(self.timeline.scalars["not_recorded"].get(part, "")))

    def steps(self, table: str) -> tuple[Floats, Floats]:
        """The moments and MiB of the step function `size`, `target` or `host_actual`; NaN: not
        known."""
        rows = self.timeline.tables[table]
        pages = [np.nan if row["pages"] is None else row["pages"] for row in rows]
        return self._times(rows, "at_s"), np.array(pages, dtype=float) / PAGES_PER_MIB

    def edges(self) -> Floats:
        """The begins of all intervals, and the end of the last."""
        number = int(self.timeline.scalars["bins"])
        edges: Floats = np.arange(number + 1, dtype=np.float64) * self.bin_s + self.begin_s
        return edges

    def flow(self) -> dict[str, Floats]:
        """Pages of each interval: `in`, and each cause that occurs."""
        rows = self.timeline.tables["flow"]
        begin_s = self.timeline.scalars["begin_s"]
        places = np.rint([(row["start_s"] - begin_s) / self.bin_s for row in rows]).astype(np.int64)
        columns = {}
        for name in ("in", *self.causes()):
            columns[name] = np.zeros(int(self.timeline.scalars["bins"]))
            columns[name][places] = [row[name] for row in rows]
        return columns

    def causes(self) -> list[str]:
        """The causes that occur, in the order in which they are stacked."""
        found = self.timeline.scalars["causes"]
        return [name for name in OUT if name in found]

    def psi(self) -> tuple[Floats, Floats, Floats]:
        """Edges, percent of some and of full: a value from each edge to the next, NaN if there is
        none."""
        rows = self.timeline.tables["psi"]
        if not rows:
            return np.empty(0), np.empty(0), np.empty(0)
        edges = np.append(self._times(rows, "start_s"), rows[-1]["end_s"] - self.origin_s)
        some, full = (
            np.array([np.nan if row[key] is None else row[key] for row in rows], dtype=float)
            for key in ("some", "full")
        )
        return edges, some, full

    def reclaim(self) -> tuple[Floats, dict[str, Floats]]:
        """Edges, and pages per second from each edge to the next, of what there was: empty if there
        was nothing."""
        rows = self.timeline.tables["reclaim"]
        if not rows:
            return np.empty(0), {}
        edges = np.append(self._times(rows, "start_s"), rows[-1]["end_s"] - self.origin_s)
        columns = {name: [row[name] or 0.0 for row in rows] for name in RECLAIM}
        return edges, {name: np.array(column) for name, column in columns.items() if any(column)}

    def memory(self) -> tuple[Floats, Floats, Floats]:
        """Moments, MiB free, MiB available (NaN: not known)."""
        rows = self.timeline.tables["memory"]
        free, available = (
            np.array([np.nan if row[key] is None else row[key] for row in rows], dtype=float) / MIB
            for key in ("free_bytes", "available_bytes")
        )
        return self._times(rows, "at_s"), free, available

    def host_memory(self) -> tuple[Floats, Floats]:
        """Moments, MiB that the hypervisor's process had."""
        rows = self.timeline.tables["host_memory"]
        resident = np.array([row["resident_bytes"] for row in rows], dtype=float) / MIB
        return self._times(rows, "at_s"), resident

    def spans(self, kind: str) -> list[tuple[float, float]]:
        """Begin and end of what is to be seen of each interval of a kind."""
        spans = self.timeline.intervals[kind]
        edges = ((span["start_s"] - self.origin_s, span["end_s"] - self.origin_s) for span in spans)
        return [(max(self.begin_s, start), min(self.end_s, end)) for start, end in edges]

    def words(self) -> list[tuple[float, str]]:
        """What people said in the guest, and when; fit to print."""
        rows = self.timeline.tables["words"]
        return [(row["at_s"] - self.origin_s, visible(row["text"])) for row in rows]

    def lanes(self) -> list[Lane]:
        """The lanes of events; that of the driver only if it was away."""
        lanes = []
        for kind, style in LANES.items():
            spans = self.spans(kind) if kind in self.timeline.intervals else []
            marks = [
                {**row, "at_s": row["at_s"] - self.origin_s}
                for row in self.timeline.tables["marks"]
                if row["kind"] == kind
            ]
            if kind == "gaps" and not spans:
                continue
            lanes.append(
                Lane(kind, f"{style.label}: {self._said(kind, spans, marks)}", spans, marks)
            )
        return lanes

    def _said(
        self, kind: str, spans: list[tuple[float, float]], marks: list[dict[str, Any]]
    ) -> str:
        """How much there is of a kind of event."""
        if kind == "no_progress" and self.picture.report.results["episodes"].missing:
            return "not recorded"
        if self.lacks(kind):
            return "not recorded"
        if kind in self.timeline.intervals:
            total = seconds(sum(end - start for start, end in spans))
            return f"{len(spans):,} ({total})" if spans else "none"
        number = sum(row["count"] for row in marks)
        return f"{number:,}" if number else "none"

    def _times(self, rows: list[dict[str, Any]], key: str) -> Floats:
        times: Floats = np.array([row[key] for row in rows], dtype=float) - self.origin_s
        return times


def alone(picture: Picture) -> list[Scene]:
    """One recording, 0 is the moment the probes were attached."""
    return [Scene(picture)]


def side_by_side(before: Picture, after: Picture) -> list[Scene]:
    """Two recordings; 0 is where the main inflation of each begins, if both have one."""
    pair = {"before": before, "after": after}
    episodes = [main_inflation(picture.report) for picture in pair.values()]
    origins = [episode["start_s"] if episode and all(episodes) else 0.0 for episode in episodes]
    return [
        Scene(picture, side, origin_s)
        for (side, picture), origin_s in zip(pair.items(), origins, strict=True)
    ]


def time_axis(scenes: list[Scene]) -> str:
    """What the axis counts."""
    if any(scene.origin_s for scene in scenes):
        return "seconds since the main inflation began"
    return "seconds since the probes were attached"


def tallest(scenes: list[Scene]) -> tuple[float, float, float]:
    """For all of them: MiB of size and target; pages in and pages out in an interval."""
    curves = [scene.steps(table)[1] for scene in scenes for table in STEPS]
    size = [curve[~np.isnan(curve)].max(initial=0.0) for curve in curves]
    flows = [scene.flow() for scene in scenes]
    into = [flow["in"].max() for flow in flows]
    out = [np.sum([flow[cause] for cause in flow if cause != "in"], axis=0).max() for flow in flows]
    return max([*size, 1.0]), max([*into, 1.0]), max([*out, 0.0])


@dataclass(frozen=True)
class Label:
    """The words of a mark beside its line; left: on its left, lest they leave the picture; below:
    how far from the top, in lines."""

    at_s: float
    text: str
    left: bool
    below: int


def labels(scene: Scene) -> list[Label]:
    """What is written at the first marks, neighbours below each other."""
    most, late_s = WORDS_CHARACTERS, scene.begin_s + 0.8 * (scene.end_s - scene.begin_s)
    return [
        Label(
            at_s,
            text if len(text) <= most else f"{text[: most - 1]}…",
            at_s > late_s,
            number % LABEL_LINES,
        )
        for number, (at_s, text) in enumerate(scene.words()[:MOST_LABELS])
    ]


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values between two, 0 among them."""
    rough = (high - low) / about
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [
        float(round(k * step, 9)) for k in range(int(np.ceil(low / step)), int(high // step) + 1)
    ]
