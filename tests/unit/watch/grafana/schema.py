# SPDX-License-Identifier: Apache-2.0
"""What the types that Grafana publishes have against a dashboard."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from balloontrace.lab.image import cache_directory

HERE = Path(__file__).parent
DECLARED = ("package.json", "package-lock.json")
TSC = (
    *("--noEmit", "--strict", "--pretty", "false"),
    *("--target", "es2022", "--module", "esnext", "--moduleResolution", "bundler"),
)


def modules() -> Path:
    """The node_modules of package-lock.json, fetched before their first use.

    Raises CalledProcessError or OSError if they cannot be had: npm is needed.
    """
    digest = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    tree = cache_directory() / f"grafana-{digest[:16]}"
    tree.parent.mkdir(parents=True, exist_ok=True)
    with (tree.parent / "lock-grafana").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.exists():
            _fetch(tree)
    return tree / "node_modules"


def _fetch(tree: Path) -> None:
    with tempfile.TemporaryDirectory(dir=tree.parent) as work:
        for name in DECLARED:
            shutil.copy(HERE / name, work)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=work, check=True)
        shutil.copytree(work, tree, symlinks=True)


def complaints(dashboards: Mapping[str, str], directory: Path) -> list[str]:
    """What tsc says of dashboards, by the names of their files; works in an empty directory."""
    (directory / "node_modules").symlink_to(modules())
    shutil.copy(HERE / "dashboard.ts", directory)
    files = [f"{name}.ts" for name in dashboards]
    for file, text in zip(files, dashboards.values(), strict=True):
        head = 'import type { Dashboard } from "./dashboard"; export const it: Dashboard ='
        (directory / file).write_text(f"{head}\n{text}")
    command = ["node_modules/.bin/tsc", *TSC, *files]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode and not done.stdout:
        raise RuntimeError(f"tsc: {done.stderr}")
    return done.stdout.splitlines()
