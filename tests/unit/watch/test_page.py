# SPDX-License-Identifier: Apache-2.0
"""The page of metrics: what parsers that are not ours read in it, and whether it is true."""

from __future__ import annotations

import random
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from balloontrace import events, sums
from balloontrace.watch import metrics
from balloontrace.watch.exposition import page
from balloontrace.watch.metrics import KERNEL_PAGE_BYTES, Reading
from tests.unit.watch.prometheus import promtool, series_of
from tests.unit.watch.readings import durations, everything, sums_of

ROOT = Path(__file__).parents[3]

ONLY_IF_KNOWN = {
    *("balloontrace_size_bytes", "balloontrace_target_bytes"),
    *("balloontrace_vmstat_agrees", "balloontrace_vmstat_difference_bytes"),
}


def value(reading: Reading, name: str, **labels: str) -> float | None:
    """Of one series of a reading's page; None if it is not there."""
    return series_of(page(reading)).get((name, frozenset(labels.items())))


def lines(text: bytes) -> list[str]:
    return [line for line in text.decode().splitlines() if not line.startswith("#")]


def test_promtool_has_nothing_against_it() -> None:
    assert promtool(page(everything())) == ""
    assert promtool(page(Reading())) == ""


def test_promtool_would_say_so() -> None:
    assert "balloontrace_calls" in promtool(page(Reading()).replace(b"calls_total", b"calls"))


def test_each_series_of_a_page_stands_there_once() -> None:
    assert len(series_of(page(everything()))) == len(lines(page(everything())))


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (b"balloontrace_attached 1\n", b"balloontrace_attached 1\nballoontrace_attached 1\n"),
        (b'le="+Inf"} ', b'le="+Inf"} 9'),  # not what _count says
        (b'kind="fill",le="0.000016384"} ', b'kind="fill",le="0.000016384"} 99'),
        (b"# TYPE balloontrace_size_bytes gauge\n", b'balloontrace_leaks_total{cause="x"} 1\n'),
    ],
    ids=["duplicate", "count", "not cumulative", "split family"],
)
def test_what_is_wrong_with_a_page_is_seen(was: bytes, becomes: bytes) -> None:
    text = page(everything())
    assert was in text
    with pytest.raises(ValueError, match=r"."):
        series_of(text.replace(was, becomes))


def test_every_series_is_there_at_0_from_the_start() -> None:
    start, later = (series_of(page(reading)) for reading in (Reading(), everything()))
    assert {name for name, _ in later.keys() - start.keys()} == {
        *ONLY_IF_KNOWN,
        "balloontrace_info",
    }
    assert {name for name, at_first in start.items() if at_first} == {
        ("balloontrace_info", frozenset({("version", ""), ("kernel", ""), ("means", "")}))
    }
    told = {dict(labels).get("kind") for name, labels in start if name.endswith("calls_total")}
    assert told >= {kind.name for kind in events.KINDS}


def test_as_many_series_as_are_stated() -> None:
    assert len(lines(page(everything()))) == metrics.most_samples()
    assert f"at most {metrics.most_samples()} series" in metrics.markdown()


@pytest.mark.parametrize(
    ("metric", "labels", "rows"),
    [
        ("call", {"kind": "fill"}, ["fill"]),
        ("call", {"kind": "leak"}, [row.name for row in sums.ROWS if row.kind == "leak"]),
        ("host_ack", {"queue": "deflate"}, ["ack deflate"]),
    ],
)
def test_buckets_hold_what_lasted_at_most_so_long(
    metric: str, labels: dict[str, str], rows: list[str]
) -> None:
    random_ = random.Random(7)
    calls = {row.name: durations(random_, metrics.BUCKETS_NS) for row in sums.ROWS}
    wanted = [duration_ns for row in rows for duration_ns in calls[row]]
    name = f"balloontrace_{metric}_duration_seconds"
    found = series_of(page(Reading(sums=sums_of(calls))))
    ours = {key: n for key, n in found.items() if set(labels.items()) <= key[1]}
    buckets = {
        dict(key[1])["le"]: count for key, count in ours.items() if key[0] == f"{name}_bucket"
    }
    assert len(buckets) == 13
    for limit, count in buckets.items():
        limit_ns = Decimal(limit.replace("+", "")) * 10**9
        assert count == sum(1 for duration_ns in wanted if duration_ns <= limit_ns), limit
    assert ours[f"{name}_count", frozenset(labels.items())] == len(wanted)
    assert ours[f"{name}_sum", frozenset(labels.items())] == sum(wanted) / 10**9


def test_what_has_a_duration_has_a_histogram() -> None:
    timed = {kind.name for kind in events.KINDS if "no duration" not in kind.doc}
    found = series_of(page(Reading()))
    name = "balloontrace_call_duration_seconds_count"
    kinds = {dict(labels)["kind"] for metric, labels in found if metric == name}
    assert kinds == timed - {"target", "ack"}  # what was read is a moment; acks are told by queue


def test_limits_of_buckets_are_powers_of_4_and_exact() -> None:
    limits = [Decimal(metrics.decimal(ns / 10**9)) * 10**9 for ns in metrics.BUCKETS_NS]
    assert limits == [4**n for n in range(7, 19)]


def test_pages_become_bytes() -> None:
    rows = {"fill": [5] * 3, "leak oom": [5] * 2, "leak host": [5], "migrate": [5] * 4}
    reading = Reading(sums=sums_of(rows, pages=10), size_pages=3, target_pages=0, progress_pages=2)
    moved = "balloontrace_moved_bytes_total"
    assert value(reading, moved, direction="in", cause="host") == 30 * 4096
    assert value(reading, moved, direction="out", cause="oom") == 20 * 4096
    assert value(reading, moved, direction="out", cause="host") == 10 * 4096
    assert value(reading, moved, direction="out", cause="shrinker") == 0
    assert value(reading, "balloontrace_migrated_bytes_total") == 40 * KERNEL_PAGE_BYTES
    assert value(reading, "balloontrace_size_bytes") == 3 * 4096
    assert value(reading, "balloontrace_target_bytes") == 0
    assert value(reading, "balloontrace_progress_bytes_total") == 2 * 4096
    assert value(reading, "balloontrace_leaks_total", cause="oom") == 2
    assert value(reading, "balloontrace_calls_total", kind="leak") == 3


def test_calls_of_every_queue_are_acks() -> None:
    reading = Reading(sums=sums_of({"ack inflate": [1], "ack deflate": [1, 2], "ack other": [3]}))
    assert value(reading, "balloontrace_calls_total", kind="ack") == 4


def test_losses_are_told_by_reason() -> None:
    counters = {
        "fill": {"entered": 100, "lost": 1, "lost_pages": 256, "untracked": 10, "missed": 3},
        "leak": {"entered": 100, "lost": 2, "skipped": 50, "untracked": 20, "missed": 4},
    }
    lost = {
        reason: value(Reading(counters=counters), "balloontrace_lost_calls_total", reason=reason)
        for reason in ("ring", "untracked", "missed")
    }
    assert lost == {"ring": 3, "untracked": 30, "missed": 7}


@pytest.mark.parametrize(
    ("differences", "agrees"),
    [
        ({}, None),
        ({"inflate": None, "deflate": None, "migrate": None}, None),
        ({"inflate": 0, "deflate": 0, "migrate": 0}, 1),
        ({"inflate": 0, "deflate": 0, "migrate": None}, 1),
        ({"inflate": 0, "deflate": -1, "migrate": None}, 0),
        ({"inflate": 1, "deflate": -1, "migrate": 0}, 0),
    ],
)
def test_what_cannot_be_compared_neither_agrees_nor_differs(
    differences: dict[str, int | None], agrees: int | None
) -> None:
    reading = Reading(differences=differences)
    assert value(reading, "balloontrace_vmstat_agrees") == agrees
    for counter in ("inflate", "deflate", "migrate"):
        pages = differences.get(counter)
        shown = value(reading, "balloontrace_vmstat_difference_bytes", counter=counter)
        assert shown == (None if pages is None else pages * 4096)


def test_the_watcher_tells_of_itself() -> None:
    reading = everything()
    labels = {"version": "0.1.0", "kernel": "6.1.0-amd64", "means": "kprobe.multi"}
    assert value(reading, "balloontrace_info", **labels) == 1
    assert value(reading, "balloontrace_attached") == 1
    assert value(reading, "balloontrace_no_progress_seconds_total") == 1.500000001
    assert value(reading, "balloontrace_reading_seconds") == 0.000045678
    assert value(reading, "balloontrace_kept_bytes") == 1 << 33
    assert value(reading, "balloontrace_findings_total", finding="oom-kill") == 3
    assert value(reading, "balloontrace_dumps_total", finding="asked") == 2
    assert value(reading, "process_cpu_seconds_total") == 12.345678901
    assert value(reading, "process_resident_memory_bytes") == 12 << 20
    assert value(reading, "process_start_time_seconds") == 1764254000.25


@pytest.mark.parametrize("kernel", ['6.1"} 7\n# "', "back\\slash\\n", "ünïcode\t", "'{}=,"])
def test_a_label_cannot_break_its_line(kernel: str) -> None:
    text = page(Reading(kernel=kernel))
    labels = {"version": "", "kernel": kernel, "means": ""}
    assert series_of(text)["balloontrace_info", frozenset(labels.items())] == 1
    assert len(text.splitlines()) == len(page(Reading()).splitlines())


def test_what_is_not_utf_8_is_made_so() -> None:
    release = b"6.1-\xff".decode("utf-8", "surrogateescape")  # as os.uname would give it
    labels = {"version": "", "kernel": "6.1-?", "means": ""}
    assert value(Reading(kernel=release), "balloontrace_info", **labels) == 1


@given(st.floats(allow_nan=False, allow_infinity=False))
@example(2.0**-24)
@example(-1e-5)
@example(1e300)
def test_numbers_are_exact_and_have_no_exponent(number: float) -> None:
    text = metrics.decimal(number)
    assert float(text) == number
    assert not set(text) - set("-.0123456789")


@given(st.integers(0, 2**64))
def test_integers_are_never_rounded(number: int) -> None:
    assert metrics.decimal(number) == str(number)


def test_the_reference_of_metrics_is_up_to_date() -> None:
    assert (ROOT / "docs/metrics.md").read_text() == metrics.markdown(), "run `make docs`"


def test_what_another_process_shows_has_nothing_that_is_its_own() -> None:
    ours, shown = (series_of(page(everything(), by_another)) for by_another in (False, True))
    own = {series for series in ours if series[0].startswith("process_")}
    assert len(own) == 3
    assert shown == {series: value for series, value in ours.items() if series not in own}
