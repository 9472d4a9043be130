# SPDX-License-Identifier: Apache-2.0
"""The timeline as panels that can be zoomed: models of Bokeh, to be drawn by its script in a page.

The panels are figures of one document: they share the time axis, and each stands in an element of
the page of its own, so that headings and legends are the page's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from bokeh.document import Document
from bokeh.models import (
    BoxZoomTool,
    ColumnDataSource,
    CrosshairTool,
    FixedTicker,
    HoverTool,
    LinearAxis,
    NumeralTickFormatter,
    Range1d,
    WheelZoomTool,
)
from bokeh.models.annotations import Span
from bokeh.plotting import figure

from balloontrace.analysis.text.writer import count
from balloontrace.analysis.timeline import series
from balloontrace.analysis.timeline.series import Label, Scene, Style
from balloontrace.analysis.timeline.tooltip import readout
from balloontrace.escape import visible

INK, FAINT, GRID = (
    Style("", "#222222", "#e6e6e6"),
    Style("", "#767676", "#9a9a9a"),
    Style("", "#dcdcdc", "#3a3a3a"),
)
"""Text and axes, less important text, grid."""

_PATTERNS = {"/": "right_diagonal_line", "\\": "left_diagonal_line", "x": "cross", ".": "dot"} | {
    "-": "horizontal_line",
    "+": "cross",
}
"""Patterns of series.Style -> their names in Bokeh."""

LEFT_PX, RIGHT_PX = 92, 92
"""Room for an axis of millions of pages. The same for all panels: their time axes stand above each
other."""


@dataclass(frozen=True)
class Panel:
    """One figure and the words around it; legend: a swatch for each of these styles."""

    id: str
    side: str
    title: str
    legend: list[tuple[Style, str]]
    why_empty: str


@dataclass
class Chart:
    """All panels of a picture. document: what Bokeh's script draws, with the ids of the elements;
    colours: [model, property, on a light ground, on a dark one]."""

    panels: list[Panel] = field(default_factory=list)
    document: dict[str, Any] = field(default_factory=dict)
    colours: list[list[str]] = field(default_factory=list)


class _Builder:
    """Makes the figures and notes what is to be coloured."""

    def __init__(self, scenes: list[Scene]) -> None:
        self.scenes = scenes
        self.chart = Chart()
        self.figures: list[Any] = []
        begin = min(scene.begin_s for scene in scenes)
        end = max(max(scene.end_s for scene in scenes), begin + 1e-3)
        self.times = Range1d(
            start=begin, end=end, bounds=(begin, end), min_interval=(end - begin) / 5000
        )
        self.times.name = "times"
        self.cursor = Span(dimension="height", line_width=1, line_dash="dotted")
        self.paint(self.cursor, "line_color", FAINT)

    def paint(self, model: Any, attribute: str, style: Style) -> None:
        """Give a model's property a colour for either ground."""
        setattr(model, attribute, style.light)
        self.chart.colours.append([model.id, attribute, style.light, style.dark])

    def panel(
        self, scene: Scene, name: str, title: str, height: int, low: float, high: float, unit: str
    ) -> Any:
        """An empty figure for one recording."""
        values = Range1d(start=low, end=high)
        plot: Any = figure(
            x_range=self.times,
            y_range=values,
            height=height,
            sizing_mode="stretch_width",
            toolbar_location=None,
            tools="",
            min_border_left=LEFT_PX,
            min_border_right=RIGHT_PX,
            min_border_top=6,
            background_fill_color=None,
            border_fill_color=None,
            output_backend="canvas",
        )
        plot.yaxis.axis_label = unit
        plot.yaxis.formatter = NumeralTickFormatter(format="0,0")
        plot.yaxis.ticker.desired_num_ticks = 4
        plot.xaxis.axis_label = series.time_axis(self.scenes)
        plot.xaxis.formatter = NumeralTickFormatter(format="0,0.[000000]")
        plot.xaxis.axis_label_text_font_size = "11px"
        for axis in (*plot.xaxis, *plot.yaxis):
            self.dress(axis)
        for grid in (*plot.xgrid, *plot.ygrid):
            self.paint(grid, "grid_line_color", GRID)
        self.paint(plot, "outline_line_color", GRID)
        plot.add_tools(
            BoxZoomTool(dimensions="width"),
            WheelZoomTool(dimensions="width", modifiers="ctrl"),
            CrosshairTool(overlay=self.cursor),
        )
        plot.toolbar.active_drag = plot.toolbar.tools[0]
        plot.toolbar.active_scroll = plot.toolbar.tools[1]
        self.figures.append(plot)
        place = f"{name}-{scene.side}" if scene.side else name
        self.chart.panels.append(Panel(place, scene.side, title, [], scene.lacks(name)))
        return plot

    def dress(self, axis: Any) -> None:
        """Colour an axis."""
        for attribute in ("axis_label_text_color", "major_label_text_color"):
            self.paint(axis, attribute, INK)
        for attribute in ("axis_line_color", "major_tick_line_color"):
            self.paint(axis, attribute, FAINT)
        axis.minor_tick_line_color = None
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_text_font_size = axis.major_label_text_font_size = "11px"

    def second_axis(self, plot: Any, unit: str, factor: float) -> None:
        """The same values in another unit, on the right."""
        low, high = plot.y_range.start, plot.y_range.end
        plot.extra_y_ranges["second"] = Range1d(start=low * factor, end=high * factor)
        axis: Any = LinearAxis(y_range_name="second", axis_label=unit)
        axis.formatter = NumeralTickFormatter(format="0,0")
        axis.ticker.desired_num_ticks = 4
        self.dress(axis)
        plot.add_layout(axis, "right")

    def note(self, style: Style, kind: str) -> None:
        """Put a series of the newest panel into its legend."""
        self.chart.panels[-1].legend.append((style, kind))

    def line(
        self, plot: Any, style: Style, times: Any, values: Any, step: bool, width: float
    ) -> None:
        """A curve."""
        draw = plot.step if step else plot.line
        more = {"mode": "after"} if step else {}
        drawn = draw(times, values, line_width=width, line_dash=style.dash, **more)
        self.paint(drawn.glyph, "line_color", style)
        self.note(style, "line")

    def area(self, plot: Any, style: Style, edges: Any, base: Any, top: Any) -> None:
        """The area between two step functions."""
        source = ColumnDataSource(
            {"x": edges, "low": np.append(base, base[-1:]), "high": np.append(top, top[-1:])}
        )
        drawn = plot.varea_step(
            "x", "low", "high", source=source, step_mode="after", fill_alpha=0.9
        )
        self.paint(drawn.glyph, "fill_color", style)
        self.hatch(drawn.glyph, style, GROUND)
        self.note(style, "area")

    def hatch(self, glyph: Any, style: Style, ink: Style) -> None:
        """Lay a style's pattern over an area."""
        if style.pattern:
            glyph.hatch_pattern = _PATTERNS[style.pattern]
            glyph.hatch_scale, glyph.hatch_weight, glyph.hatch_alpha = 7, 1, 0.75
            self.paint(glyph, "hatch_color", ink)

    def shade(self, plot: Any, scene: Scene) -> None:
        """The spans without progress, and those without a driver."""
        for kind, style in (("no_progress", series.NO_PROGRESS), ("gaps", series.GAP)):
            spans = scene.spans(kind)
            if spans:
                starts, ends = zip(*spans, strict=True)
                drawn = plot.vstrip(
                    x0=list(starts), x1=list(ends), fill_alpha=0.14, line_color=None
                )
                drawn.level = "underlay"
                self.paint(drawn.glyph, "fill_color", style)
                self.hatch(drawn.glyph, style, style)
                drawn.glyph.hatch_alpha, drawn.glyph.hatch_scale = 0.35, 12
                self.note(style, "shade")

    def words(self, plot: Any, scene: Scene, labelled: bool) -> None:
        """A line at each mark, which says its words when it is pointed at; labelled: also without
        that."""
        found = scene.words()
        if not found:
            return
        times = [at_s for at_s, _ in found]
        # Bokeh escapes what is said.
        said = [f"{at_s:,.3f} s: {text}" for at_s, text in found]
        source = ColumnDataSource({"at_s": times, "said": said})
        drawn = plot.vspan(x="at_s", source=source, line_width=1.5, line_dash=series.WORDS.dash)
        self.paint(drawn.glyph, "line_color", series.WORDS)
        plot.add_tools(HoverTool(renderers=[drawn], tooltips="@said", limit=3))
        self.note(series.WORDS, "line")
        if labelled:
            self._labels(plot, series.labels(scene))

    def _labels(self, plot: Any, found: list[Label]) -> None:
        """The words beside their lines."""
        high = plot.y_range.end
        for left in (False, True):
            mine = [label for label in found if label.left is left]
            drawn = plot.text(
                x=[label.at_s for label in mine],
                y=[high * (0.92 - 0.07 * label.below) for label in mine],
                text=[label.text for label in mine],
                text_font_size="10px",
                text_baseline="top",
                text_align="right" if left else "left",
                x_offset=-3 if left else 3,
            )
            self.paint(drawn.glyph, "text_color", series.WORDS)

    def hover(self, plot: Any, scene: Scene, source: ColumnDataSource) -> None:
        """What every panel says of the interval under the pointer."""
        strips = plot.vstrip(
            x0="start", x1="end", source=source, fill_alpha=0, line_color=None, hatch_alpha=0
        )
        keys = [key for key in source.data if key not in ("start", "end")]
        cells = "".join(f"<span>{key}</span><span>@{{{key}}}</span>" for key in keys)
        grid = "display: grid; grid-template-columns: max-content max-content; gap: 1px 10px"
        tool = HoverTool(renderers=[strips], tooltips=f'<div style="{grid}">{cells}</div>')
        tool.point_policy = "follow_mouse"
        tool.attachment = "horizontal"
        tool.limit = 1
        plot.add_tools(tool)


GROUND = Style("", "#ffffff", "#15181c")
"""Colour of the page."""


def chart(scenes: list[Scene]) -> Chart:
    """The panels of one recording, or of two: then each kind of panel twice, one below the other,
    with one scale."""
    builder = _Builder(scenes)
    sources = {scene.side: ColumnDataSource(readout(scene)) for scene in scenes}
    for draw in (_size, _flow, _lanes, _psi, _reclaim, _memory, _host):
        for scene in scenes:
            if draw is _reclaim and not scene.timeline.tables["reclaim"]:
                continue
            if draw is _host and not scene.timeline.tables["host_memory"]:
                continue
            plot = draw(builder, scene)
            builder.words(plot, scene, labelled=draw is _size)
            if draw is not _lanes:  # its marks speak for themselves
                builder.hover(plot, scene, sources[scene.side])
    for plot in builder.figures[:-1]:
        plot.xaxis.axis_label = None
    return _finish(builder)


def _finish(builder: _Builder) -> Chart:
    """The document as Bokeh's script takes it; ids are counted, so that the page of a recording is
    always the same."""
    document = Document()
    for plot in builder.figures:
        document.add_root(plot)
    elements = [panel.id for panel in builder.chart.panels]
    ids = [plot.id for plot in builder.figures]
    builder.chart.document = {
        "docs": {"timeline": document.to_json(deferred=False)},
        "items": [
            {
                "docid": "timeline",
                "root_ids": ids,
                "roots": dict(zip(ids, elements, strict=True)),
            }
        ],
    }
    return builder.chart


def _size(builder: _Builder, scene: Scene) -> Any:
    most = series.tallest(builder.scenes)[0] * 1.06
    plot = builder.panel(scene, "size", "Balloon size and target", 250, 0, most, "MiB")
    # Longer numbers than these would push the panel out of line with the others.
    millions = most * series.PAGES_PER_MIB > 9_999_999
    unit, factor = ("million pages", 1e-6) if millions else ("pages", 1.0)
    builder.second_axis(plot, unit, series.PAGES_PER_MIB * factor)
    builder.shade(plot, scene)
    builder.line(plot, series.SIZE, *scene.steps("size"), step=True, width=2)
    builder.line(plot, series.TARGET, *scene.steps("target"), step=True, width=1.5)
    if scene.timeline.tables["host_actual"]:
        builder.line(plot, series.TOLD, *scene.steps("host_actual"), step=True, width=2)
    return plot


def _flow(builder: _Builder, scene: Scene) -> Any:
    _, into, out = series.tallest(builder.scenes)
    low = -out * 1.06 if out else -into * 0.08
    unit = f"pages per {scene.bin_s:g} s"
    title = f"Pages in (above 0) and out (below) per {scene.bin_s:g} s, by cause"
    plot = builder.panel(scene, "flow", title, 230, low, into * 1.06, unit)
    rate = 1 / series.PAGES_PER_MIB / scene.bin_s
    builder.second_axis(plot, "MiB/s", rate)
    for axis, factor in ((plot.yaxis[0], 1.0), (plot.right[0], rate)):
        ticks = series.ticks(low * factor, into * 1.06 * factor)
        # Pages out are no negative number of pages.
        axis.ticker = FixedTicker(ticks=ticks)
        axis.major_label_overrides = {tick: f"{abs(tick):,.10g}" for tick in ticks}
    builder.shade(plot, scene)
    edges, columns = scene.edges(), scene.flow()
    base = np.zeros(len(edges) - 1)
    builder.area(plot, series.IN, edges, base, columns["in"])
    for cause in scene.causes():
        builder.area(plot, series.OUT[cause], edges, base, base - columns[cause])
        base = base - columns[cause]
    zero = Span(location=0, dimension="width", line_width=1)
    builder.paint(zero, "line_color", FAINT)
    plot.add_layout(zero)
    return plot


def _lanes(builder: _Builder, scene: Scene) -> Any:
    lanes = scene.lanes()
    height = 26 + 30 * len(lanes)
    plot = builder.panel(scene, "events", "Events", height, len(lanes) - 0.3, -0.75, "")
    plot.yaxis.visible = False
    plot.ygrid.visible = False
    symbols = {"sleep": "inverted_triangle", "oom_notify": "circle", "oom_kill": "x"}
    for place, lane in enumerate(lanes):
        style = series.LANES[lane.kind]
        line = Span(location=place, dimension="width", line_width=1, level="underlay")
        builder.paint(line, "line_color", GRID)
        plot.add_layout(line)
        if lane.spans:
            starts, ends = zip(*lane.spans, strict=True)
            drawn = plot.quad(left=starts, right=ends, top=place - 0.22, bottom=place + 0.22)
            builder.paint(drawn.glyph, "fill_color", style)
            builder.paint(drawn.glyph, "line_color", GROUND)
        if lane.marks:
            source = ColumnDataSource(
                {
                    "at_s": [row["at_s"] for row in lane.marks],
                    "lane": [place] * len(lane.marks),
                    "said": [_mark(scene, row) for row in lane.marks],
                }
            )
            drawn = plot.scatter(
                *("at_s", "lane"),
                source=source,
                marker=symbols[lane.kind],
                size=9,
                line_width=2 if lane.kind == "oom_kill" else 0.5,
            )
            for attribute in ("fill_color", "line_color"):
                builder.paint(drawn.glyph, attribute, style)
            plot.add_tools(HoverTool(renderers=[drawn], tooltips="@said", limit=3))
    said = plot.text(
        x=[0] * len(lanes),
        y=list(range(len(lanes))),
        text=[lane.said for lane in lanes],
        text_font_size="11px",
        text_baseline="bottom",
        y_offset=-3,
    )
    # The labels stay at the left edge when the time axis is zoomed.
    plot.extra_x_ranges["labels"] = Range1d(start=-0.004, end=1)
    said.x_range_name = "labels"
    builder.paint(said.glyph, "text_color", INK)
    return plot


def _mark(scene: Scene, row: dict[str, Any]) -> str:
    """A mark in words. Bokeh escapes them."""
    label = series.LANES[row["kind"]].label
    if row["kind"] == "oom_kill" and row["who"] is not None:
        label += f" of task {visible(row['who'])}"
    times = "" if row["count"] == 1 else f", {row['count']:,} from then on within {scene.bin_s:g} s"
    gave = "" if row["pages"] is None else f": {count(row['pages'])} pages given back"
    return f"{row['at_s']:,.3f} s: {label}{times}{gave}"


def _psi(builder: _Builder, scene: Scene) -> Any:
    title = "Memory pressure (PSI): share of the time between two samples"
    plot = builder.panel(scene, "psi", title, 130, 0, 105, "%")
    edges, some, full = scene.psi()
    if len(some):
        builder.area(plot, series.FULL, edges, np.zeros(len(full)), np.nan_to_num(full))
        builder.line(plot, series.SOME, edges, np.append(some, some[-1]), step=True, width=1.5)
    return plot


def _reclaim(builder: _Builder, scene: Scene) -> Any:
    found = [scene.reclaim()[1].values() for scene in builder.scenes]
    most = max(float(values.max()) for columns in found for values in columns)
    title = "Refaults and swap: pages per s between two samples"
    plot = builder.panel(scene, "reclaim", title, 130, 0, most * 1.06, "pages/s")
    edges, columns = scene.reclaim()
    for name, values in columns.items():
        style = series.RECLAIM[name]
        builder.line(plot, style, edges, np.append(values, values[-1]), step=True, width=1.5)
    return plot


def _memory(builder: _Builder, scene: Scene) -> Any:
    found = [scene.memory() for scene in builder.scenes]
    values = np.concatenate([[1.0], *(row[1] for row in found), *(row[2] for row in found)])
    title = "Free and available memory (samples)"
    plot = builder.panel(scene, "memory", title, 150, 0, float(np.nanmax(values)) * 1.06, "MiB")
    times, free, available = scene.memory()
    builder.line(plot, series.FREE, times, free, step=False, width=1.5)
    if not np.isnan(available).all():
        builder.line(plot, series.AVAILABLE, times, available, step=False, width=1.5)
    return plot


def _host(builder: _Builder, scene: Scene) -> Any:
    most = max(scene.host_memory()[1].max(initial=1.0) for scene in builder.scenes)
    title = "The host's memory for this guest"
    plot = builder.panel(scene, "host", title, 130, 0, float(most) * 1.06, "MiB")
    builder.line(plot, series.RESIDENT, *scene.host_memory(), step=False, width=1.5)
    return plot
