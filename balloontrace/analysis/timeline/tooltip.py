# SPDX-License-Identifier: Apache-2.0
"""What the timeline says of the interval under the pointer, in words."""

from __future__ import annotations

from typing import Any

import numpy as np

from balloontrace.analysis.text.writer import ABSENT
from balloontrace.analysis.timeline import series
from balloontrace.analysis.timeline.series import Scene


def readout(scene: Scene) -> dict[str, Any]:
    """For each interval what the pointer shows there, in words."""
    edges, flow = scene.edges(), scene.flow()
    starts, ends = edges[:-1].tolist(), edges[1:].tolist()
    columns: dict[str, Any] = {"start": starts, "end": ends}
    digits = max(0, -int(np.floor(np.log10(scene.bin_s))))
    columns["seconds"] = [
        f"{start:,.{digits}f} to {end:,.{digits}f}" for start, end in zip(starts, ends, strict=True)
    ]
    for table in ("size", "target"):
        columns[f"{table} at its end"] = _at(*scene.steps(table), edges[1:])
    columns["in"] = [_pages(pages) for pages in flow["in"]]
    out = {cause: flow[cause].tolist() for cause in scene.causes()}
    columns["out"] = [
        ", ".join(f"{_pages(row[place])} {cause}" for cause, row in out.items() if row[place])
        or _pages(0)
        for place in range(len(starts))
    ]
    if not scene.lacks("psi"):
        columns["PSI memory"] = _pressure(scene, edges[1:])
    if scene.timeline.tables["reclaim"]:
        columns["reclaim"] = _reclaimed(scene, edges[1:])
    if not scene.lacks("memory"):
        columns["memory"] = _left(scene, edges[1:])
    if scene.timeline.tables["host_memory"]:
        columns["host's memory"] = _resident(scene, edges[1:])
    return columns


def _pressure(scene: Scene, moments: Any) -> list[str]:
    """The memory pressure of the time between samples that has each moment, in words."""
    edges, some, full = scene.psi()
    places = np.searchsorted(edges, moments, side="left") - 1
    return [
        f"{_percent(some[place])} some, {_percent(full[place])} full "
        f"({edges[place]:,.1f} to {edges[place + 1]:,.1f} s)"
        if 0 <= place < len(some)
        else ABSENT
        for place in places.tolist()
    ]


def _reclaimed(scene: Scene, moments: Any) -> list[str]:
    """Refaults and swap of the time between samples that has each moment, in words."""
    edges, columns = scene.reclaim()
    places = np.searchsorted(edges, moments, side="left") - 1
    return [
        ", ".join(
            f"{values[place]:,.0f} {series.RECLAIM[name].label}/s"
            for name, values in columns.items()
        )
        if 0 <= place < len(edges) - 1
        else ABSENT
        for place in places.tolist()
    ]


def _percent(value: float) -> str:
    return ABSENT if np.isnan(value) else f"{value:.1f} %"


def _left(scene: Scene, moments: Any) -> list[str]:
    """What the last sample before each moment says, in words."""
    times, free, available = scene.memory()
    places = np.searchsorted(times, moments, side="right") - 1
    return [
        ABSENT
        if place < 0
        else f"{free[place]:,.0f} MiB free"
        + ("" if np.isnan(available[place]) else f", {available[place]:,.0f} MiB available")
        + f" (at {times[place]:,.1f} s)"
        for place in places.tolist()
    ]


def _resident(scene: Scene, moments: Any) -> list[str]:
    """What the host's last sample before each moment says, in words."""
    times, resident = scene.host_memory()
    places = np.searchsorted(times, moments, side="right") - 1
    return [
        ABSENT if place < 0 else f"{resident[place]:,.0f} MiB (at {times[place]:,.1f} s)"
        for place in places.tolist()
    ]


def _at(times: Any, mib: Any, moments: Any) -> list[str]:
    """The value of a step function just before each moment, in words."""
    places = np.searchsorted(times, moments - 1e-9, side="right") - 1
    return [
        ABSENT
        if place < 0 or np.isnan(mib[place])
        else f"{mib[place]:,.1f} MiB, {_pages(mib[place] * series.PAGES_PER_MIB)}"
        for place in places.tolist()
    ]


def _pages(pages: float) -> str:
    return f"{round(pages):,} pages"
