# SPDX-License-Identifier: Apache-2.0
"""Medians and their confidence intervals, against published tables and by counting."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest

from balloontrace.analysis.confidence import (
    COUNTED_RUNS,
    Interval,
    Value,
    coverage,
    median,
    median_interval,
    rank,
    ratio_interval,
    runs_needed,
    share_interval,
)


def exact(*values: float) -> list[Value]:
    return [Value(value) for value in values]


@pytest.mark.parametrize(
    ("runs", "j", "percent"),
    # K. R. Nair, 1940, as cited by Dixon and Massey, 1969.
    [
        *((6, 1, 96.9), (8, 1, 99.2), (9, 2, 96.1), (10, 2, 97.9), (12, 3, 96.1), (15, 4, 96.5)),
        *((17, 5, 95.1), (20, 6, 95.9), (30, 10, 95.7), (50, 18, 96.7), (65, 25, 95.4)),
    ],
)
def test_ranks_are_those_of_the_published_table(runs: int, j: int, percent: float) -> None:
    assert rank(runs, 0.95) == j
    assert round(coverage(runs, j) * 100, 1) == percent
    assert coverage(runs, j + 1) < 0.95


def test_coverage_counts_the_ways_coins_fall() -> None:
    # Runs below and above the true median: all but those with fewer than two on a side.
    falls = [sum(coins) for coins in product((0, 1), repeat=7)]
    assert coverage(7, 2) == sum(2 <= below <= 5 for below in falls) / len(falls)


def test_five_runs_are_too_few() -> None:
    assert runs_needed(0.95) == 6
    assert runs_needed(math.sqrt(0.95)) == 7
    assert median_interval(exact(1, 2, 3, 4, 5)) is None
    assert median_interval(exact(6, 5, 4, 3, 2, 1)) == Interval(1, 6, 1 - 2 / 64)
    assert median_interval([]) is None
    assert ratio_interval(exact(*range(1, 8)), exact(*range(1, 7))) is None


def test_medians_keep_what_was_measured() -> None:
    assert median(exact(9, 1, 4)) == Value(4)
    assert isinstance(median(exact(9, 1, 4)).value, int)
    assert median(exact(4, 1, 9, 7)) == Value(5.5)
    assert median(exact(3)) == Value(3)


@pytest.mark.parametrize(
    ("values", "at_least", "expected"),
    [
        ([1, 2, 30], 30, Value(2, False)),  # however long the longest takes
        ([1, 2, 30], 2, Value(2, True)),
        ([1, 2, 30], 1, Value(2, True)),  # it may take longer than 2
        ([1, 2, 4, 30], 4, Value(3, True)),
        ([1, 2, 4, 30], 30, Value(3, False)),
        ([2, 2, 2], 2, Value(2, True)),
    ],
)
def test_a_median_is_a_bound_only_if_a_bound_could_move_it(
    values: list[float], at_least: float, expected: Value
) -> None:
    runs = [Value(value, value == at_least) for value in values]
    assert median(runs) == expected


def test_an_interval_ends_nowhere_where_its_end_is_a_bound() -> None:
    runs = [Value(n, n >= 9) for n in range(1, 11)]  # j is 2: from 2 to 9
    assert median_interval(runs) == Interval(2, None, coverage(10, 2))
    runs = [Value(n, n == 10) for n in range(1, 11)]
    assert median_interval(runs) == Interval(2, 9, coverage(10, 2))


def test_a_ratio_from_the_ends_of_both_sides() -> None:
    before, after = exact(*range(60, 67)), exact(*range(10, 17))
    found = ratio_interval(before, after)
    assert found == Interval(60 / 16, 66 / 10, (1 - 2 / 128) ** 2)
    # A ratio to what may be nothing has no upper end.
    found = ratio_interval(before, exact(0, 1, 2, 3, 4, 5, 6))
    assert found == Interval(10, None, (1 - 2 / 128) ** 2)
    assert ratio_interval(before, exact(0, 0, 0, 0, 0, 0, 0)) is None
    bounded = [Value(value.value, at_least=True) for value in before]
    assert ratio_interval(bounded, after) == Interval(60 / 16, None, (1 - 2 / 128) ** 2)
    bounded = [Value(value.value, at_least=True) for value in after]
    assert ratio_interval(before, bounded) == Interval(0, 6.6, (1 - 2 / 128) ** 2)
    assert ratio_interval([Value(1, True)] * 7, bounded) is None


def test_the_confidence_is_never_less() -> None:
    # One side that hardly varies is the hardest case: then all depends on the other interval.
    dice = random.Random(7)
    true = math.exp(1) / 3
    hits = trials = 0
    for _ in range(2000):
        before = exact(*(dice.lognormvariate(1, 1.5) for _ in range(10)))
        after = exact(*(dice.uniform(2.999, 3.001) for _ in range(8)))
        found = ratio_interval(before, after)
        assert found is not None
        assert found.high is not None
        hits += found.low <= true <= found.high
        trials += 1
    # The expected share is 97.9 %; 95 % would be ten standard deviations below.
    assert 0.95 < hits / trials < 1


def counted(runs: int, j: int) -> float:
    """`coverage` by counting, however many runs there are."""
    return 1 - sum(math.comb(runs, below) for below in range(j)) / (1 << (runs - 1))


@pytest.mark.parametrize("runs", [COUNTED_RUNS + 1, COUNTED_RUNS + 2, 5000])
@pytest.mark.parametrize("confidence", [0.95, 0.9995])
def test_of_many_runs_the_confidence_is_no_less_than_asked(runs: int, confidence: float) -> None:
    j = rank(runs, confidence)
    assert counted(runs, j) >= confidence > counted(runs, j + 2)
    assert coverage(runs, j) == pytest.approx(counted(runs, j), abs=1e-4)


def test_a_million_runs_take_no_time() -> None:
    assert rank(1_000_000, 0.95) == 499_020  # 0.5 n - 0.98 sqrt n


@pytest.mark.parametrize(
    ("found", "of", "low", "high"),
    # R. G. Newcombe, Statistics in Medicine 17, 1998, table I, method 3.
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_shares_are_those_of_the_published_table(
    found: int, of: int, low: float, high: float
) -> None:
    interval = share_interval(found, of)
    assert interval is not None
    assert interval.high is not None
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


def test_a_share_of_nothing_has_no_interval() -> None:
    assert share_interval(0, 0) is None
    everything = share_interval(5, 5)
    assert everything is not None
    assert everything.high == 1
