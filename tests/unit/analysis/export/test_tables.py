# SPDX-License-Identifier: Apache-2.0
"""Parquet and CSV hold what was recorded, with its units; what is not known is null."""

from __future__ import annotations

import csv as standard_csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balloontrace.analysis.export import csv, parquet, tables
from balloontrace.analysis.export.columns import column_of
from balloontrace.analysis.export.csv import harmless
from balloontrace.analysis.trace.trace import Trace, read_trace
from balloontrace.errors import UserError
from balloontrace.escape import visible
from balloontrace.events import KINDS, UNKNOWN_PAGES
from tests.unit.builders import KINDS as NUMBERS
from tests.unit.builders import Built, ns, vmstat

DATA = Path(__file__).parents[3] / "data"
RECORDINGS = sorted(path.stem for path in DATA.glob("*.btrace"))


def built_trace(built: Built, directory: Path) -> Trace:
    return read_trace(built.ends(9.0, vmstat()).write(directory / "a.btrace"))


def parquet_of(trace: Trace, directory: Path) -> dict[str, Any]:
    """Every table of the Parquet export."""
    directory.mkdir()
    parquet.write(trace, directory, [])
    return {path.stem: pq.read_table(path) for path in directory.glob("*.parquet")}


def csv_of(trace: Trace, directory: Path) -> dict[str, list[list[str]]]:
    """Every table of the CSV export, read by the standard library."""
    directory.mkdir()
    csv.write(trace, directory, [])
    found = {}
    for path in directory.glob("*.csv"):
        with open(path, newline="") as file:
            found[path.stem] = list(standard_csv.reader(file, strict=True))
    return found


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_event_is_there(name: str, tmp_path: Path) -> None:
    trace = read_trace(str(DATA / f"{name}.btrace"))
    found = parquet_of(trace, tmp_path / "p")
    texts = csv_of(trace, tmp_path / "c")
    recorded = {kind for kind in trace.header["kinds"] if trace.recorded(kind)}
    sampled = {"vmstat", "meminfo", "psi", "delays", "driver"}
    assert set(found) - sampled == recorded
    assert set(texts) == set(found)
    assert sum(found[kind].num_rows for kind in recorded) == len(trace.records)
    for kind in recorded:
        frame, table = trace.events(kind), found[kind].to_pydict()
        for column in ("start_ns", "tid", "pid"):
            assert table[column] == frame[column].tolist()
        ended = frame["duration_ns"].astype(object).where(~frame["open"], None)
        assert table["duration_ns"] == ended.tolist()
        for column in {"asked", "done"} & set(table):
            seen = frame[column].astype(object).where(frame[column] != UNKNOWN_PAGES, None)
            assert table[column] == seen.tolist()
        codes, names = trace.names(kind)
        assert table["comm"] == [visible(names[code]) for code in codes]
        within = {"|".join(n for n, b in trace.header["within"].items() if m & b): m
                  for m in frame["within"].unique()}  # fmt: skip
        assert [within[names] for names in table["within"]] == frame["within"].tolist()
    for kind, table in found.items():
        rows = zip(*table.to_pydict().values(), strict=True)
        as_text = [["" if cell is None else str(cell) for cell in row] for row in rows]
        assert texts[kind][1:] == as_text
    samples = [s for s in trace.every_sample if "psi" in s]
    psi = found["psi"].to_pydict()
    assert psi["memory_full_us"] == [s["psi"]["memory"]["full_us"] for s in samples]
    assert psi["t_ns"] == [s["t_ns"] for s in samples]
    assert found["meminfo"].to_pydict()["MemFree"] == [s["meminfo"]["MemFree"] for s in samples]


def test_what_is_not_known_is_null(tmp_path: Path) -> None:
    built = Built().fill(1.0, 0.5, 256).fill(2.0, None, 0)
    built.call("fill", 1.6, 0.1, UNKNOWN_PAGES, UNKNOWN_PAGES)
    built.call("leak", 1.8, 0.1, 5, 5, within="worker scan", flags="partial", comm=b"")
    trace = built_trace(built, tmp_path)
    found = parquet_of(trace, tmp_path / "p")
    fill = found["fill"].to_pydict()
    assert fill["start_ns"] == [ns(1.0), ns(1.6), ns(2.0)]
    assert fill["duration_ns"] == [500_000_000, 100_000_000, None]
    assert (fill["asked"], fill["done"]) == ([256, None, 0], [256, None, 0])
    leak = found["leak"].to_pydict()
    assert (leak["within"], leak["flags"], leak["comm"]) == (["worker|scan"], ["partial"], [""])
    text = (tmp_path / "c" / "fill.csv", csv_of(trace, tmp_path / "c"))[0].read_text()
    assert f"\n{ns(1.6)},100000000,,,77,77,0," in text
    assert f"\n{ns(2.0)},,0,0,77,77,0," in text


def test_not_recorded_is_no_table_and_did_not_happen_is_an_empty_one(tmp_path: Path) -> None:
    built = Built().target(1.0, 256, 0).fill(1.0, 0.5, 256)
    built.header["seams"]["oom_kill"] = {"rung": None, "not": ["mark_victim: absent"]}
    built.header["seams"]["fill"]["loses"] = "pages of calls under way"
    trace = built_trace(built, tmp_path)
    found = parquet_of(trace, tmp_path / "p")
    assert found["sleep"].num_rows == 0
    assert "oom_kill" not in found
    about = found["fill"].schema.metadata
    assert json.loads(about[b"balloontrace.not_recorded"]) == ["oom_kill (mark_victim: absent)"]
    assert json.loads(about[b"balloontrace.traced_by"])["fill"] == {
        "rung": "kprobe",
        "loses": "pages of calls under way",
    }


def test_the_schema_documents_itself(tmp_path: Path) -> None:
    trace = read_trace(str(DATA / "6.1-tour.btrace"))
    schema = parquet_of(trace, tmp_path / "p")["scan"].schema
    meta = {field.name: field.metadata for field in schema}
    assert meta["start_ns"] == {
        b"unit": b"ns",
        b"doc": b"CLOCK_MONOTONIC when the call was entered",
    }
    assert meta["done"][b"unit"] == b"kernel pages"
    assert b"null: still open" in meta["duration_ns"][b"doc"]
    about = {key.decode(): value.decode() for key, value in schema.metadata.items()}
    assert about["balloontrace.schema"] == "1"
    assert about["balloontrace.kernel"] == "6.1.0-56-cloud-amd64"
    assert json.loads(about["balloontrace.clock"]) == trace.header["clock"]
    assert (about["balloontrace.lost_events"], about["balloontrace.complete"]) == ("0", "true")
    file = pq.ParquetFile(tmp_path / "p" / "ack.parquet")
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    described = json.loads((tmp_path / "p" / "recording.json").read_text())
    assert described["tables"]["ack"]["rows"] == len(trace.calls("ack")) > 10_000
    assert set(described["tables"]["ack"]["columns"]) == set(
        pq.read_schema(tmp_path / "p" / "ack.parquet").names
    )


def test_units_of_what_was_asked_and_done(tmp_path: Path) -> None:
    trace = built_trace(Built(), tmp_path)
    used = {
        kind.name: column_of(trace, kind.name, "done").with_unit
        for kind in KINDS
        if kind.done != "not used"
    }
    kernel = {"count", "scan", "oom_notify", "migrate", "reclaim"}
    plain = {"bind", "oom_kill", "stats"}
    assert {kind for kind, title in used.items() if title == "done_kernel_pages"} == kernel
    assert {kind for kind, title in used.items() if title == "done"} == plain
    balloon = {kind for kind, title in used.items() if title == "done_balloon_pages"}
    assert balloon == {"fill", "leak", "ack", "target", "report", "reporting", "hint"}


def test_the_recordings_own_header_goes_first(tmp_path: Path) -> None:
    built = Built().fill(1.0, 0.5, 256).call("leak", 2.0, 0.1, 7, 8, within="oom", flags="memcg")
    layout = built.header["record"]
    layout[[name for name, _ in layout].index("reserved")][0] = "zone"
    numbers = {kind: number for kind, number in NUMBERS.items() if kind != "leak"}
    built.header["kinds"] = {**numbers, "drain": NUMBERS["leak"]}
    built.header["seams"]["drain"] = {"rung": "new"}
    built.header["within"] = {"worker": 1, "oomph": 8}
    built.header["flags"] = {}
    layout[[name for name, _ in layout].index("cpu")][0] = "=1"
    trace = built_trace(built, tmp_path)
    found = parquet_of(trace, tmp_path / "p")
    assert csv_of(trace, tmp_path / "c")["fill"][0][6] == "'=1"
    assert found["fill"].to_pydict()["zone"] == [0]
    drain = found["drain"].to_pydict()
    assert (drain["asked"], drain["done"]) == ([7], [8])
    assert (drain["within"], drain["flags"]) == (["oomph"], ["0x4"])
    assert "leak" not in found


def test_a_kinds_name_cannot_leave_the_directory(tmp_path: Path) -> None:
    built = Built().fill(1.0, 0.5, 256).sample(2.0, vmstat())
    built.leak(3.0, 0.5, 1).ack(4.0, 0.1, 1, "inflate", "worker")
    numbers = {kind: number for kind, number in NUMBERS.items() if number > 3}
    built.header["kinds"] = {**numbers, "../../fill": 1, "vmstat": 2, "UP": 3}
    found = parquet_of(built_trace(built, tmp_path), tmp_path / "p")
    assert found["kind_1"].num_rows == 1
    assert found["kind_2"].num_rows == found["kind_3"].num_rows == 1
    assert found["vmstat"].to_pydict()["balloon_inflate"] == [0]


def test_rows_are_written_in_groups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trace = read_trace(str(DATA / "6.1-tour.btrace"))
    whole = parquet_of(trace, tmp_path / "whole")
    whole_text = csv_of(trace, tmp_path / "whole-csv")
    monkeypatch.setattr(tables, "ROWS_AT_ONCE", 1000)
    parts = parquet_of(trace, tmp_path / "parts")
    groups = -(-len(trace.calls("ack")) // 1000)
    assert pq.ParquetFile(tmp_path / "parts" / "ack.parquet").num_row_groups == groups > 10
    assert all(parts[name].equals(whole[name]) for name in whole)
    assert csv_of(trace, tmp_path / "parts-csv") == whole_text


def test_samples_of_any_shape(tmp_path: Path) -> None:
    built = Built().sample(1.0, {"balloon_inflate": 5, "nr_free_pages": 9})
    built.samples[-1] |= {"psi": {"memory": {"some_us": 3}, "io": "no"}, "meminfo": {"MemFree": -1}}
    built.sample(2.0, {"balloon_inflate": 6, "\x1b=": 7, "nr_free_pages": 2**70})
    built.samples += [{"vmstat": {"balloon_inflate": 1}}, {"t_ns": ns(3.0), "psi": [1]}]
    delay = {"comm": "\x1b[m", "start_ns": 7, "cpu": [2, 30]}
    built.samples.append({"t_ns": ns(4.0), "delays": {"12": delay}})
    found = parquet_of(built_trace(built.gone(5.0, vmstat()), tmp_path), tmp_path / "p")
    assert found["vmstat"].to_pydict() == {
        "t_ns": [ns(1.0), ns(2.0)],
        "balloon_inflate": [5, 6],
        "nr_free_pages": [9, None],
        r"\x1b=": [None, 7],
    }
    assert found["vmstat"].schema.field("nr_free_pages").metadata[b"unit"] == b"kernel pages"
    assert found["psi"].to_pydict() == {"t_ns": [ns(1.0)], "memory_some_us": [3]}
    delays = found["delays"].to_pydict()
    assert (delays["comm"], delays["cpu_ns"], delays["blkio_ns"]) == ([r"\x1b[m"], [30], [None])
    assert found["driver"].to_pydict() == {"t_ns": [ns(5.0)], "state": ["gone"], "why": [None]}


def test_names_are_no_formulas_and_break_no_line(tmp_path: Path) -> None:
    names = [b"=cmd|' /C'!A0", b"+1", b"-1", b"@SUM(A1)", b"\t=1", b"\r=1", b"\n=1", b"'=1",
             b'a"b,c', b"a\r\nb", "＝1".encode(), b"\xff", b"kworker/0:1", b"a=b"]  # fmt: skip
    built = Built()
    for place, name in enumerate(names):
        built.fill(1.0 + place, 0.1, 256, comm=name)
    header, *rows = csv_of(built_trace(built, tmp_path), tmp_path / "c")["fill"]
    assert header == ["start_ns", "duration_ns", "asked_balloon_pages", "done_balloon_pages",
                      "tid", "pid", "cpu", "within", "flags", "comm"]  # fmt: skip
    shown = [row[-1] for row in rows]
    assert shown == ["'=cmd|' /C'!A0", "'+1", "'-1", "'@SUM(A1)", r"\x09=1", r"\x0d=1", r"\x0a=1",
                     "''=1", 'a"b,c', r"a\x0d\x0ab", "'＝1", r"\xff", "kworker/0:1",
                     "a=b"]  # fmt: skip
    assert all(len(row) == len(header) for row in rows)


_HOSTILE = st.text(st.characters(exclude_categories=()) | st.sampled_from("=+-@'\t\r\n\\\""))


@given(_HOSTILE, _HOSTILE)
def test_harmless_names_stay_different(one: str, other: str) -> None:
    assert not harmless(one).startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert (harmless(one) == harmless(other)) == (one == other)


def test_only_the_tables_that_are_asked_for(tmp_path: Path) -> None:
    trace = read_trace(str(DATA / "6.1-stock-idle.btrace"))
    (tmp_path / "p").mkdir()
    parquet.write(trace, tmp_path / "p", ["fill", "psi", "fill"])
    names = {path.name for path in (tmp_path / "p").iterdir()}
    assert names == {"fill.parquet", "psi.parquet", "recording.json"}
    with pytest.raises(UserError, match=r"no table \\x1b; it has: .*fill"):
        parquet.write(trace, tmp_path / "p", ["\x1b"])


def test_integers_are_signed(tmp_path: Path) -> None:
    # A difference of unsigned columns is an error in DuckDB, and a huge number in pandas.
    schema = parquet_of(built_trace(Built(), tmp_path), tmp_path / "p")["fill"].schema
    numbers = [field for field in schema if field.name not in ("within", "flags", "comm")]
    assert {str(field.type) for field in numbers} == {np.dtype(np.int64).name}
