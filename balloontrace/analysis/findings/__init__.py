# SPDX-License-Identifier: Apache-2.0
"""Known pathologies, recognised from results: one file for each."""

from balloontrace.analysis.findings.base import Evidence, Finding, check_all, every_finding

__all__ = ["Evidence", "Finding", "check_all", "every_finding"]
