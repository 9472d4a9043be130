# SPDX-License-Identifier: Apache-2.0
"""Published figures of virtio-balloon on other machines, to read one's own beside them.

A reference, not a yardstick: other hardware, other kernels, other settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from balloontrace.analysis.base import Result, Section, declared, never
from balloontrace.analysis.fields import Field, Table, Unit

Results = Mapping[str, Result]


@dataclass(frozen=True)
class Source:
    """Where figures were published; how: on what and how they were measured."""

    title: str
    where: str
    how: str


@dataclass(frozen=True)
class Published:
    """One figure, in parts. what: in the words of our report; parts: (value, what it is of);
    here: the same of a recording, None if it has no such figure."""

    what: str
    parts: tuple[tuple[float, str], ...]
    unit: str
    source: Source
    here: Callable[[Results], float | None]

    def said(self) -> str:
        """The published figure in words."""
        return ", ".join(f"{value:g} {self.unit} {of}".strip() for value, of in self.parts)


def _fill_share(part: str) -> Callable[[Results], float | None]:
    """Per cent of the time of all fills: `host_ack`, or `allocation`: all but that and sleeps."""

    def share(results: Results) -> float | None:
        fill = results["phases"].scalars.get("fill")
        if not fill or not fill["total_s"] or fill["host_ack_s"] is None or fill["sleep_s"] is None:
            return None
        waited: float = fill["host_ack_s"]
        spent = waited if part == "host_ack" else fill["total_s"] - waited - fill["sleep_s"]
        return 100 * max(0.0, spent) / float(fill["total_s"])

    return share


def _rate(direction: str) -> Callable[[Results], float | None]:
    """GiB/s of the episode that reached its target and had asked for the most."""

    def rate(results: Results) -> float | None:
        reached = [
            row
            for row in results["episodes"].tables.get("episodes", [])
            if row["direction"] == direction and row["outcome"] == "reached"
        ]
        largest = max(reached, key=lambda row: int(row["asked_pages"]), default=None)
        net: float | None = largest["net_gib_per_s"] if largest else None
        return net

    return rate


def _not_traced(results: Results) -> None:
    """What others have instead of this balloon has nothing beside it."""


SCATTER_GATHER = Source(
    "[PATCH v12 5/8] virtio-balloon: VIRTIO_BALLOON_F_SG, W. Wang and L. Li, July 2017",
    "https://lkml.iu.edu/hypermail/linux/kernel/1707.1/02765.html",
    "the driver before the patch, 7 GiB of an idle guest of 8 GiB, in 4,126 ms",
)
HYPERALLOC = Source(
    "HyperAlloc, L. Wrenger et al., EuroSys 2025, and its luhsra/hyperalloc-bench",
    "https://github.com/luhsra/hyperalloc-bench",
    "bare metal, Linux 6.1, 20 GiB resized over QMP, 10 s of rest, 10 runs without the first",
)
# Medians of the nine runs in inflate/inflate.dref, rows virtio-balloon-huge and virtio-mem.
HYPERALLOC_HUGE = replace(HYPERALLOC, how="the same, by a virtio-balloon changed to 2 MiB pages")
HYPERALLOC_VIRTIO_MEM = replace(HYPERALLOC, how="the same, by virtio-mem, no device passed through")

PUBLISHED = (
    Published("fill: allocation", ((6.5, ""),), "%", SCATTER_GATHER, _fill_share("allocation")),
    Published(
        "fill: host ack",
        ((68.3, "sending PFNs"), (6.1, "address translation"), (19, "madvise")),
        "%",
        SCATTER_GATHER,
        _fill_share("host_ack"),
    ),
    Published(
        "inflating",
        ((0.95, "touched before"), (1.67, "untouched")),
        "GiB/s",
        HYPERALLOC,
        _rate("inflate"),
    ),
    Published("deflating", ((2.34, ""),), "GiB/s", HYPERALLOC, _rate("deflate")),
    Published(
        "inflating, 2 MiB pages",
        ((135, "touched before"), (288, "untouched")),
        "GiB/s",
        HYPERALLOC_HUGE,
        _not_traced,
    ),
    Published("deflating, 2 MiB pages", ((325, ""),), "GiB/s", HYPERALLOC_HUGE, _not_traced),
    Published(
        "unplugging, virtio-mem",
        ((34.4, "touched before"), (42.2, "untouched")),
        "GiB/s",
        HYPERALLOC_VIRTIO_MEM,
        _not_traced,
    ),
    Published("plugging, virtio-mem", ((102, ""),), "GiB/s", HYPERALLOC_VIRTIO_MEM, _not_traced),
)


SECTION = declared(
    Section(
        "published",
        "Published elsewhere",
        155,
        "what others measured on other machines, to compare methods, not machines",
        tables=(
            Table(
                "published",
                (
                    Field("what", Unit.TEXT),
                    Field("here", Unit.RATIO),
                    Field("unit", Unit.TEXT),
                    Field("published", Unit.TEXT),
                ),
            ),
        ),
        shown=never,
        in_json=False,
    )
)


def beside(results: Results) -> Result:
    """One row per published figure: `what`, `published` in words, `here`, `unit`, `source`."""
    rows = [
        {
            "what": figure.what,
            "published": figure.said(),
            "here": figure.here(results),
            "unit": figure.unit,
            "source": figure.source,
        }
        for figure in PUBLISHED
    ]
    return Result(SECTION.name, tables={SECTION.name: rows})


def markdown() -> str:
    """The table in docs/report.md."""
    lines = ["| figure | published | source | how |", "|---|---|---|---|"]
    for figure in PUBLISHED:
        source = figure.source
        lines.append(
            f"| {figure.what} | {figure.said()} | [{source.title}]({source.where}) | {source.how} |"
        )
    return "\n".join(lines) + "\n"
