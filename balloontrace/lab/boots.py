# SPDX-License-Identifier: Apache-2.0
"""Boots of guests: how many a run made, and which of them the emulator killed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

FILE_VARIABLE = "BALLOONTRACE_BOOTS"
"""Names a file to which every boot is appended as a JSON line, by whichever process boots."""


@dataclass(frozen=True)
class Boot:
    """One boot of one guest, and the seconds until it could be logged in to, or was given up.

    oops: what its console said when the emulator killed it, else empty.
    """

    kernel: str
    accel: str
    seconds: float
    oops: str = ""


_noted: list[Boot] = []


def note(boot: Boot) -> None:
    """Count a boot of this process, and append it to the file of FILE_VARIABLE if there is one."""
    _noted.append(boot)
    if path := os.environ.get(FILE_VARIABLE):
        with Path(path).open("a", encoding="utf-8") as file:  # one write: lines stay whole
            file.write(json.dumps(asdict(boot)) + "\n")


@contextmanager
def told(progress: Callable[[str], None]) -> Iterator[None]:
    """Tell at the end of a run, however it ends, which of its guests the emulator killed."""
    before = len(_noted)
    try:
        yield
    finally:
        if any(boot.oops for boot in _noted[before:]):
            for line in summary(_noted[before:]):
                progress(line)


def read(path: Path) -> list[Boot]:
    """Return the boots appended to a file so far. Raises OSError."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Boot(**json.loads(line)) for line in lines]


def summary(boots: Iterable[Boot]) -> list[str]:
    """Return how many guests were booted, and a line for each that its emulator killed."""
    booted = list(boots)
    killed = [boot for boot in booted if boot.oops]
    counts = f"guests booted: {len(booted)}, killed by the emulator and booted again: {len(killed)}"
    named = (f"  {boot.kernel} after {boot.seconds:.1f} s: {boot.oops}" for boot in killed)
    return [counts, *named]
