# SPDX-License-Identifier: Apache-2.0
"""Rules for Prometheus: an alert for each trigger and for the watcher itself, each declared once.

python -m tools.prometheus writes the table of alerts into docs/guides/dashboards.md; the rules are
part of share/ (tools/share.py).
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from balloontrace.analysis.findings import Finding, every_finding
from balloontrace.conditions.triggers import FINDINGS
from balloontrace.watch import textfile

GUIDE = Path(__file__).parents[1] / "docs/guides/dashboards.md"

JOB = "balloontrace"
"""What the scrape job must be called for an alert on watchers that do not answer."""

WINDOW = "10m"
"""Over which rates and ratios are formed. What was counted keeps its alert firing for so long."""

SEVERITIES = {"high": "critical", "medium": "warning"}
"""Severity of a finding -> that of its alert, in the words that Alertmanager's users go by."""

FINDINGS_OF = {"oom-kill": ("killed-beside-balloon", "memcg-oom")}
"""Trigger -> findings it may be, where that is not the one of its own name."""

INSTANCE = "{{ $labels.instance }}"


@dataclass(frozen=True)
class Recording:
    """A recording rule: what dashboards ask of every guest at once."""

    name: str
    expr: str
    meaning: str


@dataclass(frozen=True)
class Alert:
    """An alerting rule.

    holds: for how long its expression must be true, "" is at once; fires: when, in words; meaning:
    one sentence; remedy: what to do; docs: where in docs/ more is said.
    """

    name: str
    expr: str
    holds: str
    severity: str
    fires: str
    meaning: str
    remedy: str
    docs: tuple[str, ...]

    @property
    def annotations(self) -> dict[str, str]:
        """What a notification says."""
        return {
            "summary": f"{INSTANCE}: {self.meaning}",
            "remedy": self.remedy,
            "docs": " ".join(f"docs/{place}" for place in self.docs),
        }


MOVED_PER_PROGRESS = Recording(
    f"balloontrace:moved_per_progress:ratio{WINDOW}",
    f"(sum without (direction, cause) (increase(balloontrace_moved_bytes_total[{WINDOW}])) > 0) "
    f"/ increase(balloontrace_progress_bytes_total[{WINDOW}])",
    "Memory moved either way for each byte of progress toward the target: 1 is ideal, infinity is "
    "all in vain. No sample of a guest in which nothing moved.",
)
NO_PROGRESS = Recording(
    f"balloontrace:no_progress:share{WINDOW}",
    f"rate(balloontrace_no_progress_seconds_total[{WINDOW}])",
    "Share of the time in which the balloon was short of its target and came no closer, though "
    "pages moved.",
)
RECORDINGS = (MOVED_PER_PROGRESS, NO_PROGRESS)


def _camel_case(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("-"))


def _counted(metric: str, selector: str = "") -> str:
    return f"increase({metric}{selector}[{WINDOW}]) > 0"


def _remedy(findings: list[type[Finding]]) -> str:
    if len(findings) == 1:
        return findings[0].remedy
    return " ".join(f"{finding.id}: {finding.remedy}" for finding in findings)


def _of_trigger(trigger: str) -> Alert:
    known = every_finding()
    findings = [known[name] for name in FINDINGS_OF.get(trigger, (trigger,))]
    worst = min(findings, key=lambda finding: list(SEVERITIES).index(finding.severity))
    return Alert(
        f"Balloon{_camel_case(trigger)}",
        _counted("balloontrace_findings_total", f'{{finding="{trigger}"}}'),
        "",
        SEVERITIES[worst.severity],
        f"`{trigger}` was seen in the last {WINDOW}",
        "; or: ".join(finding.title for finding in findings) + ".",
        _remedy(findings),
        tuple(f"findings.md#{finding.id}" for finding in findings),
    )


OF_FINDINGS = tuple(_of_trigger(trigger) for trigger in FINDINGS)

_WATCHER = ("guides/dashboards.md#the-watcher",)

OF_WATCHER = (
    Alert(
        "BalloontraceDown",
        f'up{{job="{JOB}"}} == 0',
        "5m",
        "warning",
        f"a target of the job `{JOB}` has not answered for 5m",
        "The watcher does not answer: nobody looks at this balloon.",
        "See whether the guest runs, and `balloontrace watch` in it (its service's log says why it "
        "ended), and whether Prometheus can reach the address that it listens on.",
        _WATCHER,
    ),
    Alert(
        "BalloontraceNotAttached",
        "balloontrace_attached == 0",
        "10m",
        "warning",
        "no driver has been traced for 10m",
        "The watcher runs, and traces no balloon driver: none is loaded, or its probes do not "
        "attach.",
        "Run `balloontrace doctor` in the guest: it says what is missing. A guest without a "
        "balloon needs no watcher.",
        _WATCHER,
    ),
    Alert(
        "BalloontraceDisagrees",
        "balloontrace_vmstat_agrees == 0",
        "5m",
        "warning",
        "the sums have not been those of /proc/vmstat for 5m",
        "What the watcher summed up is not what the kernel counted: calls were missed, and its "
        "figures are not exact.",
        "balloontrace_vmstat_difference_bytes says by how much, and of which counter. Restart the "
        "watcher to begin anew; if it comes back, report it with the kernel's release and what "
        "`balloontrace doctor` prints.",
        _WATCHER,
    ),
    Alert(
        "BalloontraceLostCalls",
        _counted("balloontrace_lost_calls_total"),
        "",
        "warning",
        f"calls were lost in the last {WINDOW}",
        "Calls are missing from the recordings, or have no duration there ({{ $labels.reason }}).",
        "`ring`: more calls than could be written, the guest needs more CPU time; `untracked`: "
        "more calls at a time than there is room for; `missed`: the kernel did not run the probe "
        "at their return. Whether the sums are exact all the same, balloontrace_vmstat_agrees "
        "says.",
        _WATCHER,
    ),
    Alert(
        "BalloontraceTextfileStale",
        "time() - node_textfile_mtime_seconds"
        f'{{file=~"(.*/)?{textfile.NAME.replace(".", "[.]")}"}} > 300',
        "",
        "warning",
        "node_exporter hands out a page that is older than 5m",
        "The watcher no longer writes its page for node_exporter, which hands out the last one for "
        "ever.",
        "See whether `balloontrace watch` runs in the guest, and whether its directory can be "
        "written. If it is not to run any more, remove the file.",
        _WATCHER,
    ),
)

ALERTS = (*OF_FINDINGS, *OF_WATCHER)


Rule = dict[str, str | dict[str, str]]


def rules() -> str:
    """The file of rules, YAML."""
    groups: dict[str, list[Rule]] = {
        "balloontrace-recording": [{"record": one.name, "expr": one.expr} for one in RECORDINGS],
        "balloontrace-findings": [_rule(alert) for alert in OF_FINDINGS],
        "balloontrace-watcher": [_rule(alert) for alert in OF_WATCHER],
    }
    lines = ["# Generated from tools/prometheus.py by `make docs`.", "groups:"]
    for name, of_group in groups.items():
        lines += [f"  - name: {name}", "    rules:"]
        for rule in of_group:
            first, *others = _mapping(rule, 8)
            lines += [f"      - {first.lstrip()}", *others]
    return "\n".join([*lines, ""])


def _rule(alert: Alert) -> Rule:
    rule: Rule = {"alert": alert.name, "expr": alert.expr}
    if alert.holds:
        rule["for"] = alert.holds
    return rule | {"labels": {"severity": alert.severity}, "annotations": alert.annotations}


def _mapping(of: Mapping[str, str | dict[str, str]], indent: int) -> Iterator[str]:
    for key, value in of.items():
        if isinstance(value, str):
            yield from _scalar(key, value, indent)
        else:
            yield f"{' ' * indent}{key}:"
            yield from _mapping(value, indent + 2)


def _scalar(key: str, text: str, indent: int) -> Iterator[str]:
    """Plain where nothing in it means something to YAML, folded in any other case."""
    if re.fullmatch(r"[\w:]*\w", text):
        yield f"{' ' * indent}{key}: {text}"
        return
    yield f"{' ' * indent}{key}: >-"
    margin = " " * (indent + 2)
    # A fold becomes one space: so only single spaces may be folded, and nothing else broken.
    yield from textwrap.wrap(
        text, 100, initial_indent=margin, subsequent_indent=margin,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


BEGIN, END = "<!-- generated by tools/prometheus.py -->", "<!-- end -->"


def tables() -> str:
    """What the guide says of each alert and each recording rule."""
    lines = ["| alert | severity | fires when | means |", "|---|---|---|---|"]
    lines += [_row(alert) for alert in ALERTS]
    lines += ["", "| recorded | meaning |", "|---|---|"]
    lines += [f"| `{one.name}` | {one.meaning} |" for one in RECORDINGS]
    return "\n".join(lines)


def _row(alert: Alert) -> str:
    meaning = re.sub(r" \({{.*?}}\)", "", alert.meaning)
    more = _links(alert.docs)
    return f"| `{alert.name}` | {alert.severity} | {alert.fires} | {meaning}{more} |"


def _links(places: Iterable[str]) -> str:
    """To other documents than the guide itself."""
    others = [place for place in places if not place.startswith("guides/")]
    return "".join(f" [{place.partition('#')[2]}](../{place})" for place in others)


def with_tables(guide: str) -> str:
    """The guide with the tables of now. Raises ValueError if it has no place for them."""
    before, begin, rest = guide.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no place for the tables in {GUIDE}")
    return f"{before}{BEGIN}\n{tables()}\n{END}{after}"


def main() -> None:
    """Write the tables."""
    GUIDE.write_text(with_tables(GUIDE.read_text()))


if __name__ == "__main__":
    main()
