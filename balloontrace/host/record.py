# SPDX-License-Identifier: Apache-2.0
"""Records the host's view until it is ended, or the hypervisor is."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

from balloontrace.endings import ENDINGS, heeded
from balloontrace.errors import UserError
from balloontrace.host.clocks import Clocks, OverSsh
from balloontrace.host.sampler import Sampler
from balloontrace.host.source import Source
from balloontrace.recording.host_lines import END, STATE, HostLog

GONE = "gone"
"""The state of a hypervisor that no longer answers."""

_FIRST_PAIR_S = 20.0


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
    sampler = Sampler(source, log)
    with contextlib.ExitStack() as around:
        ending = around.enter_context(_Ending(duration_s))
        if poll_s is not None:
            around.enter_context(_polling(source, poll_s, say))
        sampler.begin(interval_s, clocks=ssh is not None)
        if ssh is not None:
            clocks = around.enter_context(Clocks(OverSsh(ssh), log))
            if not _await_first(clocks, sampler, interval_s):
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


def _await_first(clocks: Clocks, sampler: Sampler, interval_s: float) -> bool:
    """Wait for the first pair of clocks, and sample meanwhile: that it takes time to log in is no
    hypervisor that does not answer. Returns whether it came. Raises UserError as sampling does."""
    until_s = time.monotonic() + _FIRST_PAIR_S
    while not clocks.await_first(max(0.0, min(interval_s, until_s - time.monotonic()))):
        if clocks.is_over or time.monotonic() >= until_s:
            return False
        sampler.sample()
    return True


@contextlib.contextmanager
def _polling(source: Source, poll_s: int, say: Callable[[str], None]) -> Iterator[None]:
    """Have the guest asked for its statistics. What is gone by the end needs no putting back."""
    polling = source.polling(poll_s)
    polling.__enter__()
    try:
        yield
    finally:
        try:
            polling.__exit__(None, None, None)
        except UserError as error:
            with contextlib.suppress(UserError):
                source.read(statistics=False)
                say(f"warning: the interval of the statistics could not be put back: {error}")


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
    """What ends it: a signal, or that its time is over; a context manager. reason: empty until
    then. A second signal ends also what does not answer, as KeyboardInterrupt."""

    def __init__(self, duration_s: float | None) -> None:
        self.reason = ""
        self._came, self._tell = os.pipe()
        self._end_s = time.monotonic() + duration_s if duration_s else float("inf")
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Ending:
        for number in heeded():
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        os.close(self._came)
        os.close(self._tell)

    def _note(self, number: int, _: object) -> None:
        if self.reason:
            raise KeyboardInterrupt
        self.reason = ENDINGS[number]
        os.write(self._tell, b"!")

    def wait_until(self, moment_s: float) -> bool:
        """Wait for a moment (time.monotonic); True: it is to end."""
        left_s = max(0.0, min(moment_s, self._end_s) - time.monotonic())
        select.select([self._came], [], [], left_s)
        if not self.reason and time.monotonic() >= self._end_s:
            self.reason = "duration"
        return bool(self.reason)
