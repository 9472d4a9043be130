# SPDX-License-Identifier: Apache-2.0
"""The timeline as one still picture, SVG or PNG: for a mailing list, and for paper."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, MaxNLocator

from balloontrace.analysis.timeline import series
from balloontrace.analysis.timeline.series import Scene, Style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 96
WIDTH_PX, ALONE_PX, PAIR_PX = 1200, 700, 860
"""Width, and height of one timeline and of two."""

TITLE_CHARACTERS = 140

_RC: Any = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "balloontrace",  # and the same recording gives the same file
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "text.parse_math": False,  # a file name with two dollars in it is no formula
}


def figure(scenes: list[Scene], kind: str, scale: float = 1.0) -> bytes:
    """The picture of one or two recordings; kind: `svg` or `png`; scale: pixels of the latter for
    each of its usual ones."""
    with mpl.rc_context(_RC):
        drawn = _draw(scenes)
        out = BytesIO()
        if kind == "svg":
            FigureCanvasSVG(drawn)
            drawn.savefig(out, format="svg", metadata={"Date": None, "Creator": "balloontrace"})
        else:
            FigureCanvasAgg(drawn)
            drawn.savefig(out, format="png", dpi=DPI * scale, metadata={"Software": "balloontrace"})
    return out.getvalue()


def _draw(scenes: list[Scene]) -> Figure:
    """Panels from top to bottom, all with the same time axis."""
    panels = _panels(scenes)
    height = ALONE_PX if len(scenes) == 1 else PAIR_PX
    layout = ConstrainedLayoutEngine(h_pad=0.045, hspace=0.0)
    drawn = Figure(figsize=(WIDTH_PX / DPI, height / DPI), dpi=DPI, layout=layout)
    axes = drawn.subplots(
        len(panels), sharex=True, squeeze=False, height_ratios=[ratio for _, _, ratio in panels]
    )[:, 0]
    for place, (draw, scene, _) in enumerate(panels):
        axis = axes[place]
        draw(axis, scene, scenes)
        _words(axis, scene, labelled=draw is _size)
        if draw is _size:
            # Above the legend, whatever the length of either.
            axis.set_title(_short(scene.title), loc="left", fontweight="bold", pad=17)
    begin = min(scene.begin_s for scene in scenes)
    end = max(scene.end_s for scene in scenes)
    axes[-1].set_xlim(begin, max(end, begin + 1e-3))
    axes[-1].set_xlabel(series.time_axis(scenes))
    drawn.align_ylabels(axes)
    said = [f"{scene.side}: {scene.trust}" if scene.side else scene.trust for scene in scenes]
    drawn.supxlabel(
        "balloontrace; " + "; ".join(said), fontsize=7.5, color="#606060", x=0.99, ha="right"
    )
    return drawn


def _panels(scenes: list[Scene]) -> list[tuple[Any, Scene, float]]:
    """What draws each panel, of which recording, and its share of the height."""
    parts: list[tuple[Any, float]] = [(_size, 3.0), (_flow, 2.6), (_lanes, 1.3)]
    if len(scenes) == 1:
        some = scenes[0].timeline.tables["reclaim"]
        parts += [(_psi, 1.1), *([(_reclaim, 1.1)] if some else []), (_memory, 1.3)]
        parts += [(_host, 1.1)] if scenes[0].timeline.tables["host_memory"] else []
    return [(draw, scene, ratio) for scene in scenes for draw, ratio in parts]


def _size(axis: Axes, scene: Scene, scenes: list[Scene]) -> None:
    """Size and target, in MiB and in pages."""
    most = series.tallest(scenes)[0] * 1.06
    _shade(axis, scene)
    times, sizes = scene.steps("size")
    _line(axis, series.SIZE, times, sizes, step=True, width=1.8)
    _line(axis, series.TARGET, *scene.steps("target"), step=True)
    if scene.timeline.tables["host_actual"]:
        _line(axis, series.TOLD, *scene.steps("host_actual"), step=True)
    axis.set_ylim(0, most)
    axis.set_ylabel("MiB")
    _second_axis(axis, "pages", series.PAGES_PER_MIB)
    _legend_or_why(axis, scene.lacks("size"))


def _flow(axis: Axes, scene: Scene, scenes: list[Scene]) -> None:
    """Pages in above zero, out below it, stacked by cause."""
    _, into, out = series.tallest(scenes)
    _shade(axis, scene)
    edges, columns = scene.edges(), scene.flow()
    _area(axis, series.IN, edges, np.zeros(len(edges) - 1), columns["in"])
    base = np.zeros(len(edges) - 1)
    for cause in scene.causes():
        _area(axis, series.OUT[cause], edges, base, base - columns[cause])
        base = base - columns[cause]
    axis.axhline(0, color="#303030", linewidth=0.8)
    axis.set_ylim(-out * 1.06 if out else -into * 0.08, into * 1.06)
    axis.set_ylabel(f"pages per {scene.bin_s:g} s\nout        in")
    _second_axis(axis, "MiB/s", 1 / scene.bin_s / series.PAGES_PER_MIB)
    _legend_or_why(axis, scene.lacks("flow"))


def _second_axis(axis: Axes, unit: str, factor: float) -> None:
    """The same values in another unit, on the right. Pages out are no negative number of pages."""

    def there(values: Any) -> Any:
        return values * factor

    def back(values: Any) -> Any:
        return values / factor

    second = axis.secondary_yaxis("right", functions=(there, back))
    second.set_ylabel(unit)
    for side in (axis.yaxis, second.yaxis):
        side.set_major_formatter(FuncFormatter(lambda value, place: _number(abs(value), place)))
        side.set_major_locator(MaxNLocator(5))


def _lanes(axis: Axes, scene: Scene, scenes: list[Scene]) -> None:
    """Events, each kind in a lane of its own."""
    lanes = scene.lanes()
    symbols = {"sleep": "v", "oom_notify": "o", "oom_kill": "X"}
    for place, lane in enumerate(lanes):
        style = series.LANES[lane.kind]
        if lane.spans:
            bars = [(start, end - start) for start, end in lane.spans]
            axis.broken_barh(
                bars,
                (place - 0.35, 0.7),
                facecolor=style.light,
                edgecolor="white",
                linewidth=0.5,
            )
        if lane.marks:
            at = [row["at_s"] for row in lane.marks]
            axis.plot(
                *(at, [place] * len(at), symbols[lane.kind]),
                color=style.light,
                markersize=5.5,
                markeredgecolor="white",
                markeredgewidth=0.4,
                clip_on=False,
            )
    axis.set_yticks(range(len(lanes)), [lane.said for lane in lanes], fontsize=7.5)
    axis.set_ylim(len(lanes) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    axis.yaxis.tick_right()


def _psi(axis: Axes, scene: Scene, scenes: list[Scene]) -> None:
    """Memory pressure in percent of the time."""
    edges, some, full = scene.psi()
    if len(some):
        axis.stairs(
            some,
            edges,
            baseline=None,
            color=series.SOME.light,
            label=series.SOME.label,
            linewidth=1.4,
        )
        _area(axis, series.FULL, edges, np.zeros(len(full)), np.nan_to_num(full))
    axis.set_ylim(0, 105)
    axis.set_yticks([0, 50, 100])
    axis.set_ylabel("PSI memory\n% of time")
    _legend_or_why(axis, scene.lacks("psi"))


def _reclaim(axis: Axes, scene: Scene, scenes: list[Scene]) -> None:
    """What was read again, and swapped."""
    edges, columns = scene.reclaim()
    for name, values in columns.items():
        style = series.RECLAIM[name]
        axis.stairs(
            *(values, edges),
            baseline=None,
            color=style.light,
            linestyle=style.dash,
            label=style.label,
            linewidth=1.4,
        )
    axis.set_ylim(bottom=0)
    axis.set_ylabel("reclaim\npages/s")
    axis.yaxis.set_major_formatter(FuncFormatter(_number))
    axis.yaxis.set_major_locator(MaxNLocator(3))
    _legend_or_why(axis, "")


def _memory(axis: Axes, scene: Scene, scenes: list[Scene]) -> None:
    """What the guest had left."""
    times, free, available = scene.memory()
    _line(axis, series.FREE, times, free)
    if not np.isnan(available).all():
        _line(axis, series.AVAILABLE, times, available)
    axis.set_ylim(bottom=0)
    axis.set_ylabel("memory\nMiB")
    axis.yaxis.set_major_formatter(FuncFormatter(_number))
    axis.yaxis.set_major_locator(MaxNLocator(3))
    _legend_or_why(axis, scene.lacks("memory"))


def _host(axis: Axes, scene: Scene, scenes: list[Scene]) -> None:
    """What the hypervisor's process had."""
    _line(axis, series.RESIDENT, *scene.host_memory())
    axis.set_ylim(bottom=0)
    axis.set_ylabel("host\nMiB")
    axis.yaxis.set_major_formatter(FuncFormatter(_number))
    axis.yaxis.set_major_locator(MaxNLocator(3))
    _legend_or_why(axis, "")


def _shade(axis: Axes, scene: Scene) -> None:
    """The spans without progress, and those without a driver."""
    for kind, style in (("no_progress", series.NO_PROGRESS), ("gaps", series.GAP)):
        for place, (start, end) in enumerate(scene.spans(kind)):
            axis.axvspan(
                *(start, end),
                facecolor=(style.light, 0.13),
                edgecolor=(style.light, 0.35),
                hatch=style.pattern * 2,
                linewidth=0,
                label="" if place else style.label,
            )


def _words(axis: Axes, scene: Scene, labelled: bool) -> None:
    """A line at each mark; labelled: with its words."""
    style = series.WORDS
    for at_s, _ in scene.words():
        axis.axvline(at_s, color=style.light, linestyle=style.dash, linewidth=1.0)
    for label in series.labels(scene) if labelled else []:
        axis.annotate(
            label.text,
            (label.at_s, 0.92 - 0.09 * label.below),
            xycoords=axis.get_xaxis_transform(),
            xytext=(-2 if label.left else 2, 0),
            textcoords="offset points",
            ha="right" if label.left else "left",
            va="top",
            fontsize=6.5,
            color=style.light,
        )


def _line(
    axis: Axes, style: Style, times: Any, values: Any, step: bool = False, width: float = 1.4
) -> None:
    axis.plot(
        *(times, values),
        color=style.light,
        linestyle=style.dash,
        linewidth=width,
        drawstyle="steps-post" if step else "default",
        label=style.label,
    )


def _area(axis: Axes, style: Style, edges: Any, base: Any, top: Any) -> None:
    """The area between two step functions."""
    # Neighbours that are alike make one step: most intervals of most recordings are empty.
    differ = np.diff(top, prepend=np.nan) != 0
    differ |= np.diff(base, prepend=np.nan) != 0
    axis.stairs(
        *(top[differ], np.append(edges[:-1][differ], edges[-1])),
        baseline=base[differ],
        fill=True,
        facecolor=style.light,
        edgecolor="white",
        linewidth=0,
        hatch=style.pattern * 3,
        label=style.label,
    )


def _legend_or_why(axis: Axes, why: str) -> None:
    """The legend above the panel on the right; in the panel why it is empty, if it is."""
    if why:
        middle: dict[str, Any] = {"ha": "center", "va": "center", "transform": axis.transAxes}
        axis.text(0.5, 0.5, f"not recorded: {why}", color="#606060", **middle)
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        place: dict[str, Any] = {
            "loc": "lower right",
            "bbox_to_anchor": (1.0, 0.97),
            "ncols": len(handles),
        }
        axis.legend(handles, labels, frameon=False, fontsize=8, borderaxespad=0, **place)


def _short(title: str) -> str:
    """What fits into the width."""
    return title if len(title) <= TITLE_CHARACTERS else f"{title[: TITLE_CHARACTERS - 1]}…"


def _number(value: float, _place: int | None) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 or value == int(value) else f"{value:,.1f}"
