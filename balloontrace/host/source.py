# SPDX-License-Identifier: Apache-2.0
"""What a hypervisor tells of a guest's balloon: the same of each, in bytes inside the balloon."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Protocol

from balloontrace.events import BALLOON_PAGE_BYTES
from balloontrace.untrusted_json import whole

MIB = 1 << 20


@dataclass(frozen=True)
class Statistics:
    """What the guest said last on the statistics queue.

    values: name, as the hypervisor has it, -> bytes or a number; age_s: now minus when it said
    that, None: never, or the hypervisor does not say when; polling_interval_s: 0 if nobody asks.
    """

    values: dict[str, int]
    age_s: float | None = None
    polling_interval_s: int | None = None


@dataclass(frozen=True)
class Reading:
    """What was told at one moment; None is what this hypervisor does not tell.

    target_bytes, actual_bytes: inside the balloon; state: the hypervisor's own word, `running` if
    the guest runs.
    """

    target_bytes: int | None = None
    actual_bytes: int | None = None
    statistics: Statistics | None = None
    state: str | None = None


@dataclass(frozen=True)
class Facts:
    """What stays as it is: who runs the guest, its RAM with nothing in the balloon, the process.

    vcpu_threads: ids of the threads that run the guest's processors; empty: not known.
    """

    hypervisor: str
    version: str
    memory_bytes: int
    pid: int | None = None
    vcpu_threads: tuple[int, ...] = ()


class Source(Protocol):
    """A hypervisor that runs one guest. Every method raises UserError if it does not answer."""

    @property
    def facts(self) -> Facts:
        """What stays as it is."""

    def read(self, statistics: bool) -> Reading:
        """What it tells now. statistics: with these, which take a question more."""

    def polling(self, interval_s: int) -> contextlib.AbstractContextManager[None]:
        """Have it ask the guest for its statistics so often while the context lasts; what was set
        before is put back."""


def whole_number(told: Any, *names: str) -> int | None:
    """A number that is not below 0 at a place in an answer; None if there is none."""
    for name in names:
        told = told.get(name) if isinstance(told, dict) else None
    return told if whole(told) else None


def inside(memory_bytes: int, left_bytes: int) -> int:
    """What is inside the balloon, of a hypervisor that tells what it left to the guest."""
    return max(0, memory_bytes - left_bytes)


def of_pages(pages: int) -> int:
    """Bytes of balloon pages."""
    return pages * BALLOON_PAGE_BYTES
