# SPDX-License-Identifier: Apache-2.0
"""The one exception the command line prints as a single line instead of a traceback."""

from __future__ import annotations

EXIT_FAILURE = 1
"""Something went wrong that is neither a usage error nor this machine's lack of a facility."""

EXIT_USAGE = 2
"""The command line was wrong (Click's own code)."""

EXIT_UNSUPPORTED = 3
"""This machine cannot do it: no balloon device, no BPF, not root, a package missing."""

EXIT_EVENTS_LOST = 4
"""Events were lost and ``--strict`` was given."""

EXIT_FAIL_ON = 5
"""What ``--fail-on`` names was found."""


class UserError(Exception):
    """A failure the user can act on.

    message: what failed and where, one line.
    hint: what to do next, one line, or empty.
    exit_code: the process's exit status (``EXIT_*``).
    """

    def __init__(self, message: str, hint: str = "", exit_code: int = EXIT_FAILURE) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message
