# SPDX-License-Identifier: Apache-2.0
"""What a dataset says of all its recordings together.

Values that are not known are counted, and left out of distributions. An amplification of a
recording that moved pages and gained nothing is beyond all bounds: it stands above all others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from balloontrace.analysis.confidence import share_interval
from balloontrace.fleet.dataset import Dataset
from balloontrace.fleet.labels import Labels
from balloontrace.fleet.schema import KINDS

Row = dict[str, Any]

MEASURES = {
    "amplification": ("amplification", "ratio"),
    "no_progress_s": ("time without progress", "s"),
    "host_ack_p99_s": ("host ack, p99", "s"),
}
"""Column of `guest` -> name and unit of what is shown as a distribution."""

GROUPS = {
    "": "all",
    "kernel": "kernel",
    "hypervisor": "hypervisor",
    "driver": "driver",
    "day": "day",
}
"""Column -> what distributions are by."""

NOT_KNOWN = "not known"
"""The group of those of which it is not known to which they belong."""

WORST = 20

QUANTILES = {"least": 0.0, "median": 0.5, "p90": 0.9, "p99": 0.99, "most": 1.0}
"""Of a distribution, by nearest rank."""

_COLUMNS = (
    *("source", "day", "host_name", "boot_id", "kernel", "hypervisor", "driver_behaviour"),
    *("driver_version", "analysed_by", "episodes", "amplification", "no_progress_s"),
    *("longest_no_progress_s", "host_ack_p99_s", "oom_kills", "lost_events", "complete", "agrees"),
    *("sums_agree", "is_balloon", "findings", "checked"),
)


@dataclass
class Fleet:
    """A dataset as it is analysed. guests: a row for each recording, with `trust` and `driver`;
    labels: names of its columns that are labels; unlabelled: recordings without any."""

    guests: pd.DataFrame
    findings: pd.DataFrame
    failures: pd.DataFrame
    labels: tuple[str, ...] = ()
    unlabelled: int = 0


@dataclass
class Overview:
    """Plain values, fit for JSON but for an infinite amplification. doc of each row: the functions
    that make them."""

    totals: Row
    trust: Row
    findings: list[Row]
    by_kernel: list[Row]
    distributions: list[Row]
    worst: list[Row]
    failures: list[Row]
    labels: list[Row] = field(default_factory=list)


def fleet_of(dataset: Dataset, labels: Labels | None = None) -> Fleet:
    """Read the tables. Raises UserError if a part cannot be read."""
    guests = dataset.table("guest").select(list(_COLUMNS)).to_pandas()
    episodes = dataset.table("episode").select(_OF_EPISODES).to_pandas()
    findings = dataset.table("finding").select(_OF_FINDINGS).to_pandas()
    failures = dataset.table("failure").select(["source", "kind", "reason"]).to_pandas()
    guests["amplification"] = _amplifications(guests, episodes)
    guests["trust"] = _trust(guests)
    guests["driver"] = _drivers(guests)
    fleet = Fleet(guests, findings, failures)
    return _labelled(fleet, labels) if labels else fleet


_OF_EPISODES = ["source", "events_missing", "inflated_pages", "deflated_pages"]
_OF_FINDINGS = ["source", "id", "severity", "blames_balloon"]


def _amplifications(guests: pd.DataFrame, episodes: pd.DataFrame) -> pd.Series[float]:
    """Infinite where all episodes are there, no event is missing, pages moved, and none was
    gained."""
    moved = episodes[["inflated_pages", "deflated_pages"]].sum(axis=1)
    of_each = episodes.assign(moved=moved).groupby("source")
    kept = guests["source"].map(of_each.size()).fillna(0)
    whole = guests["source"].map(of_each["events_missing"].max()).eq(False)
    any_moved = guests["source"].map(of_each["moved"].sum()).fillna(0) > 0
    nothing = guests["amplification"].isna() & whole & any_moved & (kept == guests["episodes"])
    return guests["amplification"].astype(float).mask(nothing, math.inf)


TRUSTED, DOUBTFUL = "trusted", "doubtful"


def _trust(guests: pd.DataFrame) -> pd.Series[str]:
    """Trusted: whole, nothing lost, and the totals are those of /proc/vmstat; doubtful: one of
    these is not so; else it is not known."""
    good = guests["complete"] & guests["lost_events"].eq(0) & guests["agrees"].eq(True)
    bad = ~guests["complete"] | guests["lost_events"].gt(0) | guests["agrees"].eq(False)
    bad |= guests["sums_agree"].eq(False)
    trust = pd.Series(NOT_KNOWN, guests.index, dtype=object)
    return trust.mask(good, TRUSTED).mask(bad, DOUBTFUL)


def _drivers(guests: pd.DataFrame) -> pd.Series[str]:
    """How it gives memory back, and its version where there is one: in-tree ones have none."""
    behaviour = guests["driver_behaviour"].astype(object)
    version = guests["driver_version"].astype(object)
    both = (behaviour + ", ").fillna("") + version.fillna("")
    named = both.where(version.notna(), behaviour)
    return named.where(named.notna(), None)


def _labelled(fleet: Fleet, labels: Labels) -> Fleet:
    """With the labels beside the guests. A label `hypervisor` goes before what a recording says."""
    guests = fleet.guests
    said = guests[labels.key].map(labels.values)
    for place, name in enumerate(labels.names):
        values = [one[place] if isinstance(one, tuple) else None for one in said]
        column = pd.Series(values, guests.index, dtype=object)
        guests[f"label:{name}"] = column
        if name == "hypervisor":
            guests["hypervisor"] = column.where(column.notna(), guests["hypervisor"])
    fleet.labels = labels.names
    fleet.unlabelled = int(said.isna().sum())
    return fleet


def overview_of(fleet: Fleet) -> Overview:
    """All that is said of the recordings of a dataset."""
    guests = fleet.guests
    return Overview(
        totals=_totals(fleet),
        trust=_trust_counts(guests),
        findings=found_in(guests, fleet.findings),
        by_kernel=[
            {**row, "kernel": kernel}
            for kernel, some in grouped(guests, "kernel")
            for row in found_in(some, fleet.findings)
            if row["recordings"]
        ],
        distributions=[
            {"measure": measure, "by": what, "group": group, **spread(some[measure])}
            for measure in MEASURES
            for column, what in GROUPS.items()
            for group, some in (grouped(guests, column) if column else [("all", guests)])
        ],
        worst=_worst(fleet),
        failures=_failures(fleet.failures),
        labels=_by_label(fleet),
    )


def grouped(guests: pd.DataFrame, column: str) -> list[tuple[str, pd.DataFrame]]:
    """The recordings by what a column says, the group of NOT_KNOWN last; days in order, all else
    the most recordings first."""
    if guests.empty:
        return []
    known = guests[guests[column].notna()]
    groups = [(str(name), some) for name, some in known.groupby(column)]
    if column != "day":
        groups.sort(key=lambda group: (-len(group[1]), group[0]))
    others = guests[guests[column].isna()]
    return [*groups, (NOT_KNOWN, others)] if len(others) else groups


def _totals(fleet: Fleet) -> Row:
    """How many there are of what, and of which time."""
    guests = fleet.guests
    days = guests["day"].dropna()
    return {
        "recordings": len(guests),
        "failures": len(fleet.failures),
        "boots": int(guests["boot_id"].nunique()),
        "boots_not_known": int(guests["boot_id"].isna().sum()),
        "first_day": str(days.min()) if len(days) else None,
        "last_day": str(days.max()) if len(days) else None,
        "analysed_by": sorted(map(str, guests["analysed_by"].unique())),
        "is_balloon": _yes_or_no(guests["is_balloon"]),
        "found": int(guests["findings"].gt(0).sum()),
        "oom_kills": int(guests["oom_kills"].sum()),
        "oom_kills_not_known": int(guests["oom_kills"].isna().sum()),
        "unlabelled": fleet.unlabelled,
    }


def _yes_or_no(values: pd.Series[Any]) -> Row:
    """How many are true, false, and not known."""
    yes, no = int(values.eq(True).sum()), int(values.eq(False).sum())
    return {"yes": yes, "no": no, "not_known": len(values) - yes - no}


def _trust_counts(guests: pd.DataFrame) -> Row:
    """How many recordings can be trusted, and each reason by itself."""
    said = guests["trust"].value_counts()
    lost = guests["lost_events"]
    return {
        TRUSTED: int(said.get(TRUSTED, 0)),
        DOUBTFUL: int(said.get(DOUBTFUL, 0)),
        "not_known": int(said.get(NOT_KNOWN, 0)),
        "agrees": _yes_or_no(guests["agrees"]),
        "sums_agree": _yes_or_no(guests["sums_agree"]),
        "complete": _yes_or_no(guests["complete"]),
        "nothing_lost": _yes_or_no(lost.eq(0).astype(object).where(lost.notna(), None)),
    }


def found_in(guests: pd.DataFrame, findings: pd.DataFrame) -> list[Row]:
    """Of each finding in how many of these recordings it is, of those in which it was looked for,
    the most frequent first; the share with its interval."""
    with_it = findings[findings["source"].isin(guests["source"])]
    found = with_it.groupby("id")["source"].nunique()
    looked = guests["checked"].explode().dropna().value_counts()
    rows = [
        _share(str(name), int(found.get(name, 0)), int(looked.get(name, 0)))
        for name in looked.index.union(found.index)
    ]
    for row in rows:
        row["not_looked_for"] = len(guests) - row["looked_for"]
    return sorted(rows, key=lambda row: (-row["recordings"], row["id"]))


def _share(name: str, found: int, looked_for: int) -> Row:
    of = max(found, looked_for)
    interval = share_interval(found, of)
    return {
        "id": name,
        "recordings": found,
        "looked_for": of,
        "share": found / of if of else None,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
    }


def spread(values: pd.Series[float]) -> Row:
    """A distribution: how many there are, of how many the value is known, QUANTILES of these.
    gained_nothing: how many of the known are infinite."""
    known = values.dropna().to_numpy(dtype=float)
    row: Row = {
        "recordings": len(values),
        "known": len(known),
        "gained_nothing": int(np.isinf(known).sum()),
    }
    if not len(known):
        return row | dict.fromkeys(QUANTILES)
    found = np.quantile(known, list(QUANTILES.values()), method="inverted_cdf")
    return row | dict(zip(QUANTILES, map(float, found), strict=True))


def _worst(fleet: Fleet) -> list[Row]:
    """At most WORST recordings: those with most findings for which the balloon is to blame, then
    longest without progress, then the largest amplification. None of which nothing is wrong."""
    guests = fleet.guests
    blamed = fleet.findings[fleet.findings["blames_balloon"].eq(True)]
    number = guests["source"].map(blamed.groupby("source").size()).fillna(0)
    bad = (number > 0) | guests["findings"].gt(0) | guests["longest_no_progress_s"].ge(1)
    columns = ["blamed", "longest_no_progress_s", "amplification", "source"]
    order = (
        guests[bad]
        .assign(blamed=number)
        .sort_values(columns, ascending=[False, False, False, True], na_position="last")
    )
    names = fleet.findings.groupby("source")["id"].agg(list)
    keys = ("source", "host_name", "boot_id", "kernel", "trust", *_WORST_NUMBERS)
    return [
        {key: _known(row[key]) for key in keys}
        | {"findings": list(names.get(row["source"], [])), "blamed": int(row["blamed"])}
        for row in order.head(WORST).to_dict("records")
    ]


_WORST_NUMBERS = ("longest_no_progress_s", "amplification", "host_ack_p99_s", "oom_kills")


def _known(value: Any) -> Any:
    """None for what pandas has for nothing."""
    return None if value is None or value != value else value


def _failures(failures: pd.DataFrame) -> list[Row]:
    """By kind, the most frequent first: how many, what that means, and the reason of one."""
    rows = [
        {
            "kind": str(kind),
            "recordings": len(some),
            "meaning": KINDS.get(str(kind)),
            "source": str(some["source"].min()),
            "reason": str(some.sort_values("source")["reason"].iloc[0]),
        }
        for kind, some in failures.groupby("kind")
    ]
    return sorted(rows, key=lambda row: (-int(str(row["recordings"])), str(row["kind"])))


def _by_label(fleet: Fleet) -> list[Row]:
    """Of each value of each label how many recordings there are, and in how many is what."""
    return [
        {
            "label": name,
            "value": value,
            "recordings": len(some),
            "found": int(some["findings"].gt(0).sum()),
            "is_balloon": _yes_or_no(some["is_balloon"]),
            "trusted": int(some["trust"].eq(TRUSTED).sum()),
            **{measure: spread(some[measure])["median"] for measure in MEASURES},
        }
        for name in fleet.labels
        for value, some in grouped(fleet.guests, f"label:{name}")
    ]


def kernels(fleets: Iterable[Fleet]) -> list[str]:
    """The kernels that are known in any of these, those with most recordings first."""
    all_of_them = pd.concat([fleet.guests["kernel"] for fleet in fleets])
    return [str(name) for name in all_of_them.value_counts().index]
