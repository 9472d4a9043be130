# SPDX-License-Identifier: Apache-2.0
"""The signals that end what runs for long: recorders, watchers, the live view.

Standard library only, Python 3.9, and of that no more than the recorder has: it runs in guests.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal  # see tracers/machine/c_modules.py

ENDINGS: dict[int, str] = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "terminal closed",
}
"""Number -> reason, as in a trailer."""


def heeded() -> tuple[int, ...]:
    """Those of ENDINGS that are to end this process: not SIGHUP, if whoever started it has that
    ignored, as nohup does."""
    ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return tuple(number for number in ENDINGS if number != signal.SIGHUP or not ignored)
