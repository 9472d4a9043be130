# SPDX-License-Identifier: Apache-2.0
"""What doctor found, as text and as JSON: the contract of docs/doctor.md."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from balloontrace import driver_behaviour
from balloontrace.escape import plain, visible
from balloontrace.tracers.doctor.diagnose import ACCOUNTING, Diagnosis
from balloontrace.tracers.doctor.requirements import Check

SCHEMA = 1

WIDTH = 79
"""Columns, but for the last line: a verdict is one line, whatever its length."""

_LABEL_WIDTH = 17
_TOOLS = {"python": "Python", "bcc": "BCC", "pyroute2": "pyroute2", "typer": "Typer"}


def as_json(diagnosis: Diagnosis) -> str:
    """One object."""
    content = {
        "schema": SCHEMA,
        **diagnosis._asdict(),
        "checks": [check._asdict() for check in diagnosis.checks],
    }
    return json.dumps(plain(content), indent=2)


def as_text(diagnosis: Diagnosis) -> str:
    """Sections of labelled lines, and the verdict as the last line."""
    sections = {
        "Kernel": _kernel(diagnosis.kernel),
        "Balloon": _balloon(diagnosis.balloon),
        "Checks": _checks(diagnosis.checks, diagnosis.kernel["config"]),
        "Seams": _seams(diagnosis),
        "Tools": _tools(diagnosis.tools),
    }
    lines = []
    for title, rows in sections.items():
        lines += [title, *(line for label, text in rows for line in _hang(label, text)), ""]
    return "\n".join([*lines, visible(verdict(diagnosis))])


def verdict(diagnosis: Diagnosis) -> str:
    """Whether `record` will work and, if not, the first reason and what to do about it."""
    return "record will work" if diagnosis.works else f"record will not work: {diagnosis.why}"


def _hang(label: str, text: str) -> list[str]:
    """`text` beside its label, wrapped; a label that is too long has a line of its own."""
    width = WIDTH - _LABEL_WIDTH - 2
    lines = textwrap.wrap(visible(text), width, break_on_hyphens=False) or [""]
    labels = [label, *[""] * (len(lines) - 1)]
    pairs = zip(labels, lines)
    return [f"  {label:{_LABEL_WIDTH}}{line}".rstrip() for label, line in pairs]


Rows = Iterator[tuple[str, str]]


def _kernel(facts: Mapping[str, Any]) -> Rows:
    yield "release", f"{facts['release']} {facts['machine']}"
    yield (
        "machine",
        f"{facts['cpus']} CPUs, {_mib(facts['memory_bytes'])}, "
        f"pages of {facts['page_size'] // 1024} KiB",
    )


def _balloon(facts: Mapping[str, Any]) -> Rows:
    """Device, driver, behaviour and accounting, as far as there is a device."""
    if facts["device"] is None:
        yield "device", "none: this is no guest with a virtio balloon"
        return
    yield "device", f"{facts['device']} on {facts['transport'].upper()} {facts['address']}"
    yield "driver", _driver(facts["driver"])
    if facts["features"] is None:
        return
    yield "features", ", ".join(facts["features"]) or "none negotiated"
    for name, why in facts["not_negotiated"].items():
        yield "", f"not negotiated: {name}; {why}"
    yield (
        "behaviour",
        f"{driver_behaviour.DESCRIPTIONS[facts['behaviour']]}: {facts['behaviour_because']}",
    )
    yield "accounting", ACCOUNTING[facts["accounting"]]
    yield "size", _size(facts)


def _driver(facts: Mapping[str, Any]) -> str:
    if not facts["loaded"]:
        return "not loaded"
    parts = [
        "built in" if facts["built_in"] else f"module {facts['name']}",
        "bound" if facts["bound"] else "not bound to the device",
        *(f"{key} {facts[key]}" for key in ("version", "srcversion", "taint") if facts[key]),
        "out of tree" if facts["out_of_tree"] else "",
    ]
    return ", ".join(filter(None, parts))


def _size(facts: Mapping[str, Any]) -> str:
    """The balloon's size and what `free` makes of it."""
    size, total = facts["size_bytes"], facts["mem_total_bytes"]
    if size is None:
        return "unknown, /proc/vmstat does not count its pages"
    shown = f"{_mib(size)}; free shows {_mib(total)} in total"
    if facts["accounting"] == "used":
        return f"{shown}, the balloon as used"
    return f"{shown}, {_mib(total + size)} if the balloon were empty"


def _checks(checks: list[Check], config: Mapping[str, Any]) -> Rows:
    """ok; less: a recording does without; no: there is no recording."""
    for check in checks:
        mark = "ok" if check.ok else "no" if check.required else "less"
        found = check.found
        if not check.ok and check.option in config and config[check.option] is None:
            found += f" ({check.option} is not set in {config['source']})"
        yield check.name, f"{mark}: {found}"
        if check.remedy:
            yield "", f"to do: {check.remedy}"


def _seams(diagnosis: Diagnosis) -> Rows:
    """The rung of each seam, what it loses, and why it is not a better one."""
    if not diagnosis.seams:
        yield "", "none attached, see the last line"
        return
    yield "means", diagnosis.means["used"]
    for reason in diagnosis.means["not"]:
        yield "", f"not {reason}"
    for name, seam in diagnosis.seams.items():
        if seam["rung"] is None:
            first, *others = seam["not"]
            yield name, f"not attached: {first}"
        else:
            others = [f"not {reason}" for reason in seam["not"]]
            yield name, seam["rung"]
        if seam["loses"]:
            yield "", f"loses: {seam['loses']}"
        for reason in others:
            yield "", reason


def _tools(tools: Mapping[str, Mapping[str, Any]]) -> Rows:
    for name, tool in tools.items():
        yield _TOOLS[name], ", ".join(filter(None, (tool["version"], tool["found"])))
        if tool["remedy"]:
            yield "", f"to do: {tool['remedy']}"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:,.1f} MiB"
