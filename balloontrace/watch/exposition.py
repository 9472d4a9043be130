# SPDX-License-Identifier: Apache-2.0
"""The page that Prometheus reads, in its text format 0.0.4."""

from __future__ import annotations

from balloontrace.watch.metrics import METRICS, OF_ANY_PROCESS, decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from balloontrace.watch.metrics import Metric, Reading

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def page(reading: Reading, by_another: bool = False) -> bytes:
    """All metrics of a reading. What UTF-8 cannot say stands as `?`.

    by_another: another process shows it with its own, as node_exporter does with a textfile: the
    metrics that every process has are then that one's.
    """
    shown = (m for m in METRICS if not (by_another and m.name.startswith(OF_ANY_PROCESS)))
    lines = (line for metric in shown for line in _family(metric, reading))
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def _family(metric: Metric, reading: Reading) -> Iterator[str]:
    yield f"# HELP {metric.name} {_escaped(metric.help)}"
    yield f"# TYPE {metric.name} {metric.kind}"
    for sample in metric.samples(reading):
        labels = ",".join(f'{name}="{_quoted(value)}"' for name, value in sample.labels)
        braces = f"{{{labels}}}" if labels else ""
        yield f"{metric.name}{sample.suffix}{braces} {decimal(sample.value)}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', '\\"')
