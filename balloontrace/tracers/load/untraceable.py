# SPDX-License-Identifier: Apache-2.0
"""What will do where nothing can be traced."""

from __future__ import annotations

from balloontrace.errors import EXIT_UNSUPPORTED, UserError
from balloontrace.tracers.machine import balloon

INSTEAD = "record --counters, which needs neither root nor BPF"


def has_balloon() -> bool:
    """Whether anything is to be seen that takes memory from this machine: a virtio balloon with its
    driver, or another."""
    return bool((balloon.device() and balloon.identity()) or balloon.other())


def or_counters(error: UserError) -> UserError:
    """The error of a recorder that cannot trace this machine, with what needs no tracing; any other
    error as it is, and that of a machine without a balloon."""
    if error.exit_code != EXIT_UNSUPPORTED or not has_balloon():
        return error
    either = f"{error.hint}; or " if error.hint else ""
    return UserError(error.message, f"{either}{INSTEAD}", error.exit_code)
