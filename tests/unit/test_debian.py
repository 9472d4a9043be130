# SPDX-License-Identifier: Apache-2.0
"""What debian/ says twice: the version, and what the analyses need."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

from balloontrace import __version__, bundle

ROOT = Path(__file__).parents[2]


def test_the_version_is_the_project_s() -> None:
    assert (ROOT / "debian/changelog").read_text().startswith(f"balloontrace ({__version__}) ")


def test_the_analyses_need_what_the_wheel_s_do() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {*project["dependencies"], *project["optional-dependencies"]["analysis"]}
    wanted.add(f"python{project['requires-python']}")
    control = (ROOT / "debian/control").read_text().partition("\nPackage: balloontrace\n")[2]
    depends = control.partition("Depends:")[2].partition("Suggests:")[0]
    declared = re.findall(r"python3(?:-(\w+))? \((>=) ([\d.]+)\)", depends)
    assert {f"{name or 'python'}{how}{version}" for name, how, version in declared} == wanted


def test_the_recorder_s_tree_runs_by_itself(tmp_path: Path) -> None:
    """As the launcher begins it, without what is installed for this Python."""
    bundle.unpack(tmp_path)
    launcher = (ROOT / "debian/bin/balloontrace-record").read_text()
    code = launcher.replace("/usr/share/balloontrace-record", str(tmp_path))
    assert str(tmp_path) in code
    done = subprocess.run(
        [sys.executable, "-IS", "-c", code, "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"balloontrace {__version__}\n"
