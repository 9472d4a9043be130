# SPDX-License-Identifier: Apache-2.0
"""All that `report` says of one recording: the result of every question, and the findings."""

from __future__ import annotations

from dataclasses import dataclass

from balloontrace.analysis.base import Result, run_all
from balloontrace.analysis.findings import check_all
from balloontrace.analysis.questions.reconciliation import Reconciliation, equal_kinds
from balloontrace.analysis.reference_figures import beside
from balloontrace.analysis.trace.trace import Trace, read_trace
from balloontrace.analysis.verdict import verdict_of


@dataclass(frozen=True)
class Report:
    """results: by name of the section."""

    results: dict[str, Result]

    @property
    def recording(self) -> Result:
        """What the recording says of itself."""
        return self.results["recording"]


def build(path: str) -> Report:
    """Read and analyse the recording at `path`; UserError if it cannot be read."""
    return report_of(read_trace(path))


def report_of(trace: Trace) -> Report:
    """Analyse a trace, or a window of one; what is said of the recording is of all of it."""
    entire = trace.entire
    reconciled = Reconciliation().run(entire).scalars
    entire.disagrees = False in (reconciled["agrees"], reconciled["sums_agree"])
    entire.proven = equal_kinds(reconciled)
    for one in (entire, trace):
        one.computed.clear()  # whether they agree is part of what is known
    results = run_all(trace)
    results["findings"] = check_all(results)
    results["verdict"] = verdict_of(results)
    results["published"] = beside(results)
    return Report(results)
