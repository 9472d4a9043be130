# SPDX-License-Identifier: Apache-2.0
"""The rules of the house that a machine can check."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "balloontrace"
HEAVY = ("pandas", "numpy", "rich", "pyarrow", "perfetto", "msgspec", "isal", "textual")
RECORDER_HAS = {
    *("balloontrace", "ctypes", "errno", "genericpath", "mmap", "os", "posixpath", "select"),
    *("stat", "struct", "types", "zlib"),
}
"""Beside what every interpreter has. `make bench-memory` prints what others would cost: `typing`,
`json`, `signal` and `socket`, with what they need, are 2 MiB of the 12 that a recorder may take."""


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in memory after a statement, in a fresh interpreter."""
    code = f"{statement}; import sys; print(*{{m.partition('.')[0] for m in sys.modules}})"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


GUEST_SIDE = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for folder in ("conditions", "live", "tracers", "watch")
    for path in sorted((PACKAGE / folder).glob("**/[!_]*.py"))
    if path.parent.name != "screen"  # on the workstation, with Textual
]


@pytest.mark.parametrize("module", GUEST_SIDE)
def test_what_runs_in_a_guest_is_light(module: str) -> None:
    assert not loaded_by(f"import {module}") & set(HEAVY)


def modules_after(statement: str) -> set[str]:
    """Public top-level modules in memory after a statement, as launch.py starts the recorder."""
    code = f"{statement}; import sys; print(*{{m.partition('.')[0] for m in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", code],
        env={"PYTHONPATH": str(PACKAGE.parent)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {name for name in done.stdout.split() if not name.startswith("_")}


def test_the_recorder_is_lighter_still() -> None:
    loaded = modules_after("from balloontrace.tracers.record.session import main")
    assert "balloontrace" in loaded
    assert loaded - modules_after("pass") - RECORDER_HAS == set()


@pytest.mark.parametrize("module", ["exposition", "server", "textfile"])
def test_handing_out_metrics_is_as_light(module: str) -> None:
    loaded = modules_after(f"import balloontrace.watch.{module}")
    assert "balloontrace" in loaded
    assert loaded - modules_after("pass") - RECORDER_HAS == set()


def test_the_recorder_has_no_reader() -> None:
    code = "import balloontrace.tracers.record.session, sys; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    ours = {name for name in loaded.stdout.split() if name.startswith("balloontrace.recording.")}
    assert ours == {"balloontrace.recording.layout", "balloontrace.recording.writer"}


CLI_IN_THE_GUEST = (
    *("argparse_verbs", "bundled", "doctor_text", "duration", "outcome", "output", "verbs"),
    *("commands/doctor", "commands/live", "commands/mark", "commands/record", "commands/watch"),
)
IN_THE_GUEST = [
    *sorted((PACKAGE / "conditions").glob("**/*.py")),
    *sorted((PACKAGE / "live").glob("*.py")),  # not its screen
    *sorted((PACKAGE / "tracers").glob("**/*.py")),
    *sorted((PACKAGE / "watch").glob("**/*.py")),
    *(PACKAGE / "recording" / f"{name}.py" for name in ("layout", "spool", "writer")),
    *(PACKAGE / "recording" / f"{name}.py" for name in ("block", "content", "differences")),
    *(PACKAGE / "recording" / f"{name}.py" for name in ("follow", "host_clock", "host_lines")),
    *(PACKAGE / name for name in ("driver_behaviour.py", "errors.py", "escape.py", "events.py")),
    *(PACKAGE / name for name in ("json_text.py", "one_file.py", "sums.py", "thresholds.py")),
    *(PACKAGE / name for name in ("destination.py", "endings.py", "untrusted_json.py")),
    *(PACKAGE / "cli" / f"{name}.py" for name in CLI_IN_THE_GUEST),
]


@pytest.mark.parametrize("path", IN_THE_GUEST, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_runs_in_a_guest_is_python_3_9(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    called = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not [c.lineno for c in called if any(word.arg == "strict" for word in c.keywords)]


def test_the_command_line_loads_no_analysis_before_it_is_asked_to() -> None:
    loaded = loaded_by("import balloontrace.cli.app")
    assert not loaded & {"pandas", "numpy", "pyarrow", "perfetto", "qemu"}


def test_data_moves_down_only() -> None:
    above = {
        "conditions": ("cli", "analysis", "fleet", "live", "tracers", "watch", "host", "lab"),
        "tracers": ("cli", "analysis", "fleet", "live", "watch", "host", "lab"),
        "watch": ("cli", "analysis", "fleet", "live", "host", "lab"),
        "live": ("cli", "analysis", "fleet", "tracers", "watch", "host", "lab"),
        "analysis": ("cli", "conditions", "fleet", "live", "tracers", "watch", "host", "lab"),
        "host": ("cli", "analysis", "fleet", "conditions", "live", "tracers", "watch", "lab"),
        "fleet": ("cli", "conditions", "live", "tracers", "watch", "host", "lab"),
        "lab": ("cli", "analysis", "fleet", "live", "watch"),
        "": ("cli", "analysis", "fleet", "conditions", "live", "tracers", "watch", "host", "lab"),
    }
    for layer, forbidden in above.items():
        for path in (PACKAGE / layer).glob("**/*.py" if layer else "*.py"):
            if path.name == "__main__.py":
                continue
            for name in imported(path):
                parts = name.split(".")
                wrong = parts[0] == "balloontrace" and len(parts) > 1 and parts[1] in forbidden
                assert not wrong, f"{path} imports {name}"


RECORDING = {
    "__init__": (),
    "layout": (),
    "spool": (),
    "writer": ("layout", "spool"),
    "block": ("layout",),
    "blocks": ("layout", "block"),
    "content": ("layout", "block"),
    "differences": ("layout",),
    "follow": ("layout", "block", "content", "differences"),
    "host_clock": (),
    "host_lines": (),
    "many_differences": ("layout", "differences"),
    "reader": ("layout", "block", "blocks", "content", "differences", "many_differences"),
}
"""Files of recording, and the others that each may import."""


def test_of_a_recording_writer_and_reader_share_the_layout_only() -> None:
    paths = {path.stem: path for path in (PACKAGE / "recording").glob("*.py")}
    assert paths.keys() == RECORDING.keys()
    for name, path in paths.items():
        for imports in imported(path):
            others = [other for other in RECORDING if other in imports.split(".")[2:]]
            ours = imports.startswith("balloontrace.recording")
            assert not ours or set(others) <= set(RECORDING[name]), (path, imports)
    in_the_guest = [
        p for f in ("conditions", "tracers", "watch") for p in (PACKAGE / f).glob("**/*.py")
    ]
    of_a_writer = ("layout", "spool", "writer")
    for path in [*in_the_guest, *(paths[name] for name in of_a_writer)]:
        for imports in imported(path):
            allowed = tuple(f"balloontrace.recording.{name}" for name in of_a_writer)
            assert not imports.startswith("balloontrace.recording.") or imports.startswith(allowed)


FLOORS = ("machine", "samplers", "attach", "record", "load", "doctor")
"""Folders of tracers; each imports those before it only."""


@pytest.mark.parametrize("floor", FLOORS)
def test_in_the_guest_each_floor_stands_on_those_below(floor: str) -> None:
    above = FLOORS[FLOORS.index(floor) + 1 :]
    for path in (PACKAGE / "tracers" / floor).glob("*.py"):
        for name in imported(path, at_the_top=True):
            parts = name.split(".")
            assert parts[:2] != ["balloontrace", "tracers"] or parts[2] not in above, (path, name)


STOREYS = ("trace", "questions", "findings", "text", "timeline", "html")
"""Folders of analysis, likewise."""


@pytest.mark.parametrize("storey", STOREYS)
def test_in_the_analyses_each_storey_stands_on_those_below(storey: str) -> None:
    above = STOREYS[STOREYS.index(storey) + 1 :]
    paths = list((PACKAGE / "analysis" / storey).glob("*.py"))
    assert paths
    for path in paths:
        for name in imported(path):
            parts = name.split(".")
            assert parts[:2] != ["balloontrace", "analysis"] or parts[2] not in above, (path, name)


def test_every_question_is_one_and_nothing_else_is_among_them() -> None:
    for path in (PACKAGE / "analysis" / "questions").glob("[!_]*.py"):
        assert "(Question):" in path.read_text(), path


def imported(path: Path, at_the_top: bool = False) -> list[str]:
    """Every module a file imports, anywhere in it or at the top only."""
    names = []
    tree = ast.parse(path.read_text())
    for node in tree.body if at_the_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def test_tests_do_not_stand_on_benchmarks() -> None:
    for folder in ("balloontrace", "tests", "tools"):
        for path in (PACKAGE.parent / folder).glob("**/*.py"):
            for name in imported(path):
                assert name.partition(".")[0] != "bench", f"{path} imports {name}"


def test_no_version_of_the_kernel_is_compared() -> None:
    for path in (PACKAGE / "tracers").glob("**/*.[ch]"):
        text = path.read_text()
        assert "LINUX_VERSION_CODE" not in text or path.name == "version.h", path


def test_every_source_file_names_its_licence() -> None:
    root = PACKAGE.parent
    sources = [
        path
        for folder in ("balloontrace", "bench", "tests", "tools")
        for pattern in ("**/*.py", "**/*.[ch]")
        for path in (root / folder).glob(pattern)
    ]
    assert len(sources) > 200
    nameless = [p for p in sources if "SPDX-License-Identifier: " not in p.read_text()[:100]]
    assert nameless == []
