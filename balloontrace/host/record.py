# SPDX-License-Identifier: Apache-2.0
"""Records the host's view until it is ended, or the hypervisor is."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator

from balloontrace.errors import UserError
from balloontrace.host.clocks import Clocks, OverSsh
from balloontrace.host.sampler import Sampler
from balloontrace.host.source import Source
from balloontrace.recording.host_lines import END, STATE, HostLog

GONE = "gone"
"""The state of a hypervisor that no longer answers."""

_FIRST_PAIR_S = 20.0

ENDINGS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "terminal closed",
}
"""What ends a recording, and what its last line says then."""


def record(
    source: Source,
    log: HostLog,
    interval_s: float,
    duration_s: float | None,
    ssh: str | None,
    poll_s: int | None,
    say: Callable[[str], None],
) -> str:
    """Record; returns why it ended. ssh: the guest, for its clocks; poll_s: have the guest asked
    for its statistics so often. Raises UserError if it cannot begin."""
    ending = _Ending(duration_s)
    sampler = Sampler(source, log)
    with contextlib.ExitStack() as around:
        if poll_s is not None:
            around.enter_context(_polling(source, poll_s))
        sampler.begin(interval_s, clocks=ssh is not None)
        if ssh is not None:
            clocks = around.enter_context(Clocks(OverSsh(ssh), log))
            if not clocks.await_first(_FIRST_PAIR_S):
                raise UserError(
                    f"`ssh {ssh} python3` does not tell the guest's clocks",
                    "see that it works without a password, or leave --ssh out",
                )
        say("recording the host's view; Ctrl-C ends it")
        reason = _loop(sampler, interval_s, ending)
        if not reason:
            log.write(STATE, state=GONE)
            reason = "the hypervisor does not answer any more"
    log.write(END, reason=reason)
    return reason


@contextlib.contextmanager
def _polling(source: Source, poll_s: int) -> Iterator[None]:
    """Have the guest asked for its statistics. What is gone by the end needs no putting back."""
    polling = source.polling(poll_s)
    polling.__enter__()
    try:
        yield
    finally:
        with contextlib.suppress(UserError):
            polling.__exit__(None, None, None)


def _loop(sampler: Sampler, interval_s: float, ending: _Ending) -> str:
    """Sample until it is to end; returns why, '' if the source does not answer."""
    next_s = time.monotonic() + interval_s
    while not ending.wait_until(next_s):
        try:
            sampler.sample()
        except UserError:
            return ""
        missed = max(0.0, time.monotonic() - next_s) // interval_s
        next_s += interval_s * (1 + missed)
    return ending.reason


class _Ending:
    """What ends it: a signal, or that its time is over. reason: empty until then."""

    def __init__(self, duration_s: float | None) -> None:
        self.reason = ""
        self._came = threading.Event()
        self._end_s = time.monotonic() + duration_s if duration_s else float("inf")
        for number in ENDINGS:
            signal.signal(number, self._note)

    def _note(self, number: int, _: object) -> None:
        self.reason = ENDINGS[signal.Signals(number)]
        self._came.set()

    def wait_until(self, moment_s: float) -> bool:
        """Wait for a moment (time.monotonic); True: it is to end."""
        self._came.wait(max(0.0, min(moment_s, self._end_s) - time.monotonic()))
        if not self.reason and time.monotonic() >= self._end_s:
            self.reason = "duration"
        return bool(self.reason)
