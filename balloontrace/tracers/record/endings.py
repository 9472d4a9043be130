# SPDX-License-Identifier: Apache-2.0
"""The signals that end a recording."""

from __future__ import annotations

from balloontrace.tracers.machine.c_modules import signal

ENDINGS: dict[int, str] = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "terminal closed",
}
"""Number -> reason in the trailer."""
