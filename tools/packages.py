# SPDX-License-Identifier: Apache-2.0
"""Builds the Debian packages (`make deb`), and has lintian look at them.

    python -m tools.packages DIRECTORY

They are built from a copy of the tree as it is, so that nothing is left behind in it. The same tree
makes the same bytes, on the same Debian.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from balloontrace.errors import UserError
from balloontrace.lab.host import require_tools
from tools import command

ROOT = Path(__file__).parents[1]

NAMES = ("balloontrace-record", "balloontrace")

_TOOLS = ("dh", "dpkg-buildpackage", "git", "lintian")
_CLEAN = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
"""The environment they are built in: with Debian's own Python, whichever comes first elsewhere."""


def build(out: Path) -> list[Path]:
    """Build the packages of NAMES into a directory, and check them. Raises UserError."""
    require_tools(_TOOLS)
    with tempfile.TemporaryDirectory(prefix="balloontrace-deb-") as work:
        tree = Path(work) / "balloontrace"
        _copy(tree)
        _run(["dpkg-buildpackage", "--build=binary", "--no-sign"], tree)
        (changes,) = Path(work).glob("*.changes")
        as_root = ["--allow-root"] if os.geteuid() == 0 else []
        said = _run(["lintian", "--fail-on", "error", *as_root, changes.name], Path(work))
        if said:
            command.progress(said)
        out.mkdir(parents=True, exist_ok=True)
        return [
            Path(shutil.copy(made, out))
            for name in NAMES
            for made in Path(work).glob(f"{name}_*.deb")
        ]


def _copy(tree: Path) -> None:
    """Copy what git knows, or would take, with what was changed."""
    list_them = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = _run(list_them, ROOT, environment=None)
    for name in listed.split("\0"):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)


def _run(argv: Sequence[str], where: Path, environment: Mapping[str, str] | None = _CLEAN) -> str:
    """Run a step; returns what it says on stdout. Raises UserError.

    environment: None is that of this process.
    """
    done = subprocess.run(
        argv, cwd=where, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        command.progress(f"{done.stdout}{done.stderr}".strip())
        raise UserError(f"{argv[0]} failed with status {done.returncode}", "what it said is above")
    return done.stdout.strip()


def main() -> int:
    """Build them; returns the exit status. Raises UserError."""
    parser = argparse.ArgumentParser(prog="python -m tools.packages", description=__doc__)
    parser.add_argument("out", metavar="DIRECTORY", type=Path)
    for made in build(parser.parse_args().out):
        command.progress(f"wrote {made}: {made.stat().st_size / 1024:.0f} KiB")
    return 0


if __name__ == "__main__":
    command.run("make deb", main)
