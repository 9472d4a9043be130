# SPDX-License-Identifier: Apache-2.0
"""What is in a dataset: its tables and columns, each with type, unit and meaning, declared once.

Every row tells of which recording it is: `source`, and the `batch` it was read with. Text is as
harmless as escape.py makes it, and at most TEXT_CHARS long: who shows it escapes HTML, and nothing
else. Null means that it was not recorded or is not known; 0 and empty lists are facts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = 1
"""Of the dataset: a column whose meaning changes gets a new number. More columns do not."""

PREFIX = "balloontrace."
"""Of the keys in the metadata of each part: `schema`, `table`, `doc`."""

TEXT_CHARS = 4096
"""Of one text at most; what is longer is cut, and ends with an ellipsis."""

EPISODES = 16
"""Rows of episodes that a recording has at most: all of them, or the worst."""

KINDS = {
    "unreadable": "the file is no recording, or nothing of it can be read",
    "memory": "it took more memory than a worker may have",
    "time": "it took longer than a recording may take",
    "killed": "the worker was killed, or died, while it read this recording alone",
    "error": "the analysis failed on it, which is a bug",
    "source": "the file could not be fetched, or changed meanwhile; the next run tries again",
}
"""Why a recording failed."""

READ = "read"
"""The outcome of one that did not."""


@dataclass(frozen=True)
class Column:
    """kind: how Arrow calls the type: string, int64, double, bool, date32[day], timestamp[ms, UTC],
    list<string>; unit: empty for what has none; doc: what it says; known: whether it is never
    null."""

    name: str
    kind: str
    unit: str
    doc: str
    known: bool = False


@dataclass(frozen=True)
class Table:
    """doc: what one row is."""

    name: str
    doc: str
    columns: tuple[Column, ...]

    def __getitem__(self, name: str) -> Column:
        """The column of that name. Raises KeyError."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


def _text(name: str, doc: str, known: bool = False) -> Column:
    return Column(name, "string", "", doc, known)


def _texts(name: str, doc: str) -> Column:
    return Column(name, "list<string>", "", doc, True)


def _pages(name: str, doc: str) -> Column:
    return Column(name, "int64", "balloon pages", doc)


def _bytes(name: str, doc: str, known: bool = False) -> Column:
    return Column(name, "int64", "bytes", doc, known)


def _number(name: str, doc: str, known: bool = False) -> Column:
    return Column(name, "int64", "number", doc, known)


def _seconds(name: str, doc: str, known: bool = False) -> Column:
    return Column(name, "double", "s", doc, known)


def _ratio(name: str, doc: str) -> Column:
    return Column(name, "double", "ratio", doc)


def _share(name: str, doc: str) -> Column:
    return Column(name, "double", "share of 1", doc)


def _flag(name: str, doc: str, known: bool = False) -> Column:
    return Column(name, "bool", "", doc, known)


_OF = (
    _text("source", "where the recording is: an absolute path, or a URL", True),
    _text("batch", "with what it was read: the hash in the names of its parts", True),
    Column(
        "day",
        "date32[day]",
        "UTC",
        "of its begin by the guest's clock; where that is not known, when the file was written",
        True,
    ),
)
"""What every row begins with."""

_FILE = (
    _bytes("size_bytes", "of the file", True),
    _text("version", "of the file: the object's ETag, or when it was written (mtime, ns)", True),
    _text("analysed_by", "the version of balloontrace that read it", True),
)

GUEST = Table(
    "guest",
    "one recording of one guest",
    (
        *_OF,
        *_FILE,
        _text("recorded_by", "the version of balloontrace that recorded it"),
        _text("host_name", "the guest's"),
        _text("boot_id", "of the guest, one for each boot"),
        _text("kernel", "its release, as uname -r says"),
        _text("machine", "the architecture"),
        _text("hypervisor", "as the host's side says, else the maker in the guest's DMI table"),
        _number("cpus", "of the guest"),
        _bytes("ram_bytes", "MemTotal, plus the balloon where the driver lowers it"),
        _text("driver_behaviour", "how the driver gives memory back; null: none was traced"),
        _text("driver_version", "srcversion of the module, or its version"),
        _texts("features", "that driver and device negotiated"),
        _text("means", "how it was traced: kprobe.multi, fentry, kprobe, counters"),
        Column("begin_utc", "timestamp[ms, UTC]", "UTC", "by the guest's clock"),
        _seconds("duration_s", "from begin to end", True),
        _pages("inflated_pages", "into the balloon"),
        _pages("deflated_pages", "out of it"),
        _pages("migrated_pages", "moved in the guest by compaction"),
        _ratio("churn_ratio", "of what moved, what was undone on the way to the same target"),
        _ratio("round_trip_ratio", "of what moved, what came back at any time"),
        _ratio(
            "amplification",
            "pages moved toward targets for each that was gained, over all episodes; null: none "
            "was gained, or events of an episode are missing",
        ),
        _ratio("amplification_most", "of the worst episode that gained any"),
        _seconds("no_progress_s", "in episodes, in all spans of a second or more"),
        _seconds("longest_no_progress_s", "the longest such time, however short"),
        _number("episodes", "on the way to a target"),
        _number("reached", "of those, that had it"),
        _number("settled", "that stayed short of it, at rest, until another target came"),
        _number("superseded", "that were on the way when another target came"),
        _number("unfinished", "that were on the way when the recording ended"),
        _number("host_acks", "waits for the host that had an answer"),
        _seconds("host_ack_median_s", "of one"),
        _seconds("host_ack_p99_s", "nearest rank: 99 % took no longer"),
        _seconds("host_ack_longest_s", "those without an answer at the end, too"),
        _number("oom_kills", "by /proc/vmstat, else those traced; memory cgroups' too"),
        _bytes("available_least_bytes", "MemAvailable"),
        _share("psi_some_worst_share", "of the worst minute, some task waited for memory"),
        _share("psi_full_worst_share", "of the worst minute, all did"),
        _pages("size_most_pages", "in the balloon"),
        _share("size_most_share", "of RAM, in the balloon"),
        _number("lost_events", "null: there is no trailer to say so"),
        _flag("complete", "it has its end, and nothing of it is damaged", True),
        _flag("agrees", "the traced totals are those of /proc/vmstat; null: not comparable"),
        _flag("sums_agree", "events are what the kernel side summed up; null: it has no sums"),
        _flag("is_balloon", "the balloon is what the guest suffers from; null: it cannot be told"),
        _text("verdict", "the same in a sentence", True),
        _number("findings", "rows of `finding`", True),
        _texts("checked", "ids of the findings that were looked for: the others are not known"),
    ),
)

EPISODE = Table(
    "episode",
    f"the way to one target; of each recording all, or the {EPISODES} worst: those longest without "
    "progress, then those with the largest amplification",
    (
        *_OF,
        Column("number", "int64", "number", "as `report` counts them, from 1", True),
        _seconds("start_s", "since attach", True),
        _seconds("end_s", "since attach", True),
        _text("direction", "inflate or deflate", True),
        _text("outcome", "reached, settled, superseded, unfinished", True),
        _pages("target_pages", "in the balloon, as the host wants it"),
        _pages("asked_pages", "between start and target"),
        _pages("gained_pages", "toward the target"),
        _pages("inflated_pages", "into the balloon"),
        _pages("deflated_pages", "out of it"),
        _flag("events_missing", "then amplification and time are lower bounds, or null", True),
        _ratio("amplification", "moved toward the target for each gained; null: none was gained"),
        _ratio("churn_ratio", "of what moved, what was undone"),
        _seconds("no_progress_s", "in all spans of a second or more"),
        _seconds("longest_no_progress_s", "the longest such time"),
    ),
)

FINDING = Table(
    "finding",
    "one known pathology in one recording",
    (
        *_OF,
        _text("id", "docs/findings.md", True),
        _text("severity", "high or medium", True),
        _text("certainty", "high, medium or low", True),
        _flag("blames_balloon", "the balloon, its driver or its host is the cause", True),
        _text("summary", "what was seen, in words", True),
        _text(
            "evidence", "the numbers: a JSON object, whose lists are left out if it is long", True
        ),
    ),
)

FAILURE = Table(
    "failure",
    "one recording of which nothing is known, and why",
    (
        *_OF,
        *_FILE,
        _text("kind", ", ".join(KINDS), True),
        _text("reason", "one line", True),
    ),
)

INPUT = Table(
    "input",
    "one file that was looked at; of several rows of a source the last is the one that counts",
    (
        *_OF[:2],
        *_FILE,
        _text("outcome", f"{READ}, or the kind of failure", True),
        Column("read_at", "timestamp[ms, UTC]", "UTC", "by the worker's clock", True),
    ),
)

TABLES = {table.name: table for table in (GUEST, EPISODE, FINDING, FAILURE, INPUT)}
"""By name. All but `input` are partitioned by day: DIR/guest/day=2026-11-27/BATCH.parquet. The
parts of `input`, DIR/input/BATCH.parquet, are written last: parts of a batch that has none are of a
run that was killed, and count for nothing."""


def arrow(table: Table) -> pa.Schema:
    """The table's schema for Arrow, with unit and meaning of each column in the metadata."""
    import pyarrow as pa

    kinds = {
        "string": pa.string(),
        "int64": pa.int64(),
        "double": pa.float64(),
        "bool": pa.bool_(),
        "date32[day]": pa.date32(),
        "timestamp[ms, UTC]": pa.timestamp("ms", "UTC"),
        "list<string>": pa.list_(pa.string()),
    }
    fields = [
        pa.field(
            column.name,
            kinds[column.kind],
            nullable=not column.known,
            metadata={"unit": column.unit, "doc": column.doc},
        )
        for column in table.columns
    ]
    about = {"schema": str(VERSION), "table": table.name, "doc": table.doc}
    return pa.schema(fields, {PREFIX + key: value for key, value in about.items()})
