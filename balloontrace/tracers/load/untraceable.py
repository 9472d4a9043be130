# SPDX-License-Identifier: Apache-2.0
"""What will do where nothing can be traced."""

from __future__ import annotations

from balloontrace.errors import EXIT_UNSUPPORTED, UserError
from balloontrace.tracers.machine import balloon


def has_balloon() -> bool:
    """Whether anything is to be seen that takes memory from this machine."""
    return bool(balloon.device() or balloon.other())


def or_counters(error: UserError) -> UserError:
    """The error of a recorder that cannot trace this machine, with what needs no tracing; any other
    error as it is, and that of a machine without a balloon."""
    if error.exit_code != EXIT_UNSUPPORTED or not has_balloon():
        return error
    either = f"{error.hint}; or " if error.hint else ""
    hint = f"{either}record --counters, which needs neither root nor BPF"
    return UserError(error.message, hint, error.exit_code)
