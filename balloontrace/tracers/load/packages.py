# SPDX-License-Identifier: Apache-2.0
"""The Python packages a guest needs, what the distributions call them, and whether they are there.

Nothing is imported to find out: BCC would cost 70 MiB.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from balloontrace.errors import EXIT_UNSUPPORTED, UserError

DISTRIBUTIONS = {
    "debian": ("Debian, Ubuntu", "apt install"),
    "fedora": ("Fedora", "dnf install"),
    "alpine": ("Alpine", "apk add"),
}
"""ID or ID_LIKE of os-release(5) -> for people, and how a package is installed."""

PACKAGES = {
    "bcc": {"debian": "python3-bpfcc", "fedora": "python3-bcc", "alpine": "py3-bcc"},
    "pyroute2": {
        "debian": "python3-pyroute2",
        "fedora": "python3-pyroute2",
        "alpine": "py3-pyroute2",
    },
    "typer": {"debian": "python3-typer", "fedora": "python3-typer", "alpine": "py3-typer"},
}
"""Module -> distribution -> package. PyPI's `bcc` is another thing altogether."""


def distribution(release: Mapping[str, str]) -> str:
    """The key of DISTRIBUTIONS that fits an os-release(5), '' if none does."""
    names = [release.get("ID", ""), *release.get("ID_LIKE", "").split()]
    return next((name for name in names if name in DISTRIBUTIONS), "")


def how_to_install(module: str, release: Mapping[str, str] | None = None) -> str:
    """What to type to get a module of PACKAGES here; for every distribution if ours is unknown.

    release: os-release(5); default is this machine's.
    """
    ours = distribution(_os_release() if release is None else release)
    if ours:
        return f"{DISTRIBUTIONS[ours][1]} {PACKAGES[module][ours]}{_venv_note()}"
    ways = [
        f"{install} {PACKAGES[module][name]} ({people})"
        for name, (people, install) in DISTRIBUTIONS.items()
    ]
    return ", ".join(ways) + _venv_note()


def find(module: str) -> str:
    """The version of a module of PACKAGES, 'unknown' if it does not say.

    Raises UserError (exit code 3) with what to install if it is not there, or is another's.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise UserError(
            f"{_PEOPLE.get(module, module)} is not installed for this Python",
            how_to_install(module),
            EXIT_UNSUPPORTED,
        )
    if module == "bcc":
        return _bcc_version(Path(spec.origin).parent)
    from importlib import metadata  # costs more than all of this file, and BCC is asked first

    try:
        return metadata.version(module)
    except metadata.PackageNotFoundError:
        return "unknown"


_PEOPLE = {"bcc": "BCC, the BPF compiler,"}


def _bcc_version(directory: Path) -> str:
    """Raises UserError if the package in `directory` is not the BPF Compiler Collection."""
    if not (directory / "libbcc.py").exists():
        raise UserError(
            "the 'bcc' found here is PyPI's unrelated lattice package",
            f"pip uninstall bcc; {how_to_install('bcc')}",
            EXIT_UNSUPPORTED,
        )
    try:
        said = re.search(r"__version__ = '([^']+)'", (directory / "version.py").read_text())
    except OSError:
        return "unknown"
    return said[1] if said else "unknown"


def _os_release() -> Mapping[str, str]:
    """os-release(5) of this machine: platform's own reader came with Python 3.10."""
    for path in (Path("/etc/os-release"), Path("/usr/lib/os-release")):
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        pairs = (line.split("=", 1) for line in lines if re.match(r"[A-Z0-9_]+=", line))
        return {name: _unquoted(value) for name, value in pairs}
    return {}


def _unquoted(value: str) -> str:
    try:
        return "".join(shlex.split(value))
    except ValueError:  # a quotation mark alone
        return value


def _venv_note() -> str:
    """A virtual environment may not see what the distribution installs."""
    if sys.prefix == sys.base_prefix:
        return ""
    try:
        settings = (Path(sys.prefix) / "pyvenv.cfg").read_text().lower()
    except OSError:
        return ""
    sees = re.search(r"^include-system-site-packages\s*=\s*true", settings, re.MULTILINE)
    return "" if sees else ", and a virtual environment made with --system-site-packages"
