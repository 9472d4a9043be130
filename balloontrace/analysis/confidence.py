# SPDX-License-Identifier: Apache-2.0
"""Medians of a few runs and how sure they are, without assuming anything of their distribution.

The interval of a median is that of order statistics: the true median lies between the j-th value
from below and the j-th from above unless fewer than j of the n runs fell on one side of it, and how
likely that is, the binomial distribution of n fair coins says. See K. R. Nair, "Table of Confidence
Interval for the Median in Samples from any Continuous Population", Sankhya 4, 1940; J.-Y. Le
Boudec, "Performance Evaluation of Computer and Communication Systems", 2010, chapter 2; T. Hoefler
and R. Belli, "Scientific Benchmarking of Parallel Computing Systems", SC '15, recommend it.

The ratio of two medians lies between the ratios of the ends of their intervals if both medians are
in theirs. The sides are independent, so each gets the square root of the confidence. This is exact
in that the confidence is never less, and on the safe side: the interval is wider than one that
assumes that both sides vary alike, which a driver that works and one that does not never do.

A value can be a lower bound: the run ended before what was measured did.

The interval of a share is that of E. B. Wilson, "Probable Inference, the Law of Succession, and
Statistical Inference", Journal of the American Statistical Association 22, 1927, which L. D. Brown,
T. T. Cai and A. DasGupta, "Interval Estimation for a Binomial Proportion", Statistical Science 16,
2001, recommend. Its confidence is what is asked on the average, not at the least.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

CONFIDENCE = 0.95

COUNTED_RUNS = 1000
"""Up to so many runs the ways that coins fall are counted. Of more, which takes ever longer, the
normal distribution says them, half a run to the safe side (Le Boudec, appendix A)."""


@dataclass(frozen=True)
class Value:
    """What one run gave; at_least: it is a lower bound."""

    value: float
    at_least: bool = False


@dataclass(frozen=True)
class Interval:
    """Ends of a confidence interval. high: None if there is no upper bound, for it would be a
    value that is itself a lower bound, or a ratio to nothing. confidence: never less than asked."""

    low: float
    high: float | None
    confidence: float


def median(values: Sequence[Value]) -> Value:
    """The median; of an even number, the mean of the middle two. values: not empty.

    It is a lower bound if a larger value than is known in any of the runs could change it.
    """
    ordered = sorted(value.value for value in values)
    lower, upper = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    middle = upper if len(ordered) % 2 else (lower + upper) / 2
    return Value(middle, _could_change(values, upper))


def _could_change(values: Sequence[Value], order_statistic: float) -> bool:
    """Whether this value of a sorted list would be another if the lower bounds were higher."""
    return any(value.at_least and value.value <= order_statistic for value in values)


def rank(runs: int, confidence: float) -> int:
    """The largest j whose interval, from the j-th value to the j-th last, has this confidence.

    0: that many runs are too few for any.
    """
    if runs > COUNTED_RUNS:
        return int((runs - _deviations(confidence) * math.sqrt(runs)) / 2)
    found = 0
    while found < runs // 2 and coverage(runs, found + 1) >= confidence:
        found += 1
    return found


def coverage(runs: int, j: int) -> float:
    """The confidence of the interval from the j-th value to the j-th last of `runs`."""
    if runs > COUNTED_RUNS:
        return 1 - 2 * NormalDist().cdf((2 * j - 1 - runs) / math.sqrt(runs))
    beyond = sum(math.comb(runs, below) for below in range(j))
    return 1 - beyond / (1 << (runs - 1))


def runs_needed(confidence: float) -> int:
    """The least number of runs for which there is an interval."""
    runs = 2
    while not rank(runs, confidence):
        runs += 1
    return runs


def median_interval(values: Sequence[Value], confidence: float = CONFIDENCE) -> Interval | None:
    """A confidence interval of the median; None if there are too few runs for one."""
    j = rank(len(values), confidence)
    if not j:
        return None
    ordered = sorted(value.value for value in values)
    low, high = ordered[j - 1], ordered[-j]
    known = None if _could_change(values, high) else high
    return Interval(low, known, coverage(len(values), j))


def ratio_interval(
    before: Sequence[Value], after: Sequence[Value], confidence: float = CONFIDENCE
) -> Interval | None:
    """A confidence interval of the ratio of the medians of values that are not negative; None if
    there are too few runs on a side, or nothing is known of the ratio."""
    each = math.sqrt(confidence)
    above, below = median_interval(before, each), median_interval(after, each)
    if above is None or below is None:
        return None
    low = above.low / below.high if below.high else 0.0
    high = above.high / below.low if above.high is not None and below.low > 0 else None
    if low == 0 and high is None:
        return None
    return Interval(low, high, above.confidence * below.confidence)


def share_interval(found: int, of: int, confidence: float = CONFIDENCE) -> Interval | None:
    """A confidence interval of a share, of which `found` of `of` were seen; None if `of` is 0."""
    if not of:
        return None
    deviations = _deviations(confidence)
    weight = deviations**2 / of
    middle = found / of + weight / 2
    reach = deviations * math.sqrt(found / of * (1 - found / of) / of + weight / (4 * of))
    low, high = (middle - reach) / (1 + weight), (middle + reach) / (1 + weight)
    # What was seen is in it, however the last digit is rounded.
    return Interval(min(max(low, 0.0), found / of), max(min(high, 1.0), found / of), confidence)


def _deviations(confidence: float) -> float:
    """Standard deviations to each side that a normal distribution has this share within."""
    return NormalDist().inv_cdf((1 + confidence) / 2)
