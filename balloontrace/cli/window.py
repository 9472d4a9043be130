# SPDX-License-Identifier: Apache-2.0
"""`--since` and `--until`: which part of a recording is meant."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from pathlib import Path

from balloontrace.analysis.trace.host_view import lay_beside
from balloontrace.analysis.trace.trace import Trace, read_trace, section
from balloontrace.analysis.trace.window import Window
from balloontrace.cli import output
from balloontrace.cli.duration import seconds_in
from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.escape import visible
from balloontrace.recording.host_lines import named_as

_NEAR_NS = 1_000_000_000
"""So far outside of the recording a time of day may be: people leave its fraction out."""


def read(file: Path, since: str | None, until: str | None, host: Path | None = None) -> Trace:
    """The recording, or what it has from `since` to `until`, as they stand on the command line.

    host: the host's view to be laid beside it; None: the one that has its name, if there is one.
    Raises UserError if one of them cannot be read, or there is no such part of it.
    """
    trace = read_trace(str(file))
    _lay_beside(trace, file, host)
    if since is None and until is None:
        return trace
    since_ns, until_ns = (
        text if text is None else _moment(trace, option, text)
        for option, text in (("--since", since), ("--until", until))
    )
    if since_ns is not None and since_ns >= trace.end_ns:
        raise _outside(trace, f"--since {since} is the end of the recording, or after it")
    if until_ns is not None and until_ns <= trace.begin_ns:
        raise _outside(trace, f"--until {until} is the begin of the recording, or before it")
    if since_ns is not None and until_ns is not None and since_ns >= until_ns:
        raise _outside(trace, f"--since {since} is not before --until {until}")
    return Window(trace, since_ns, until_ns)


def _lay_beside(trace: Trace, file: Path, host: Path | None) -> None:
    """Give the trace the host's view. One that nobody named, and that cannot be used, is said."""
    if host:
        lay_beside(trace, str(host))
    elif named := named_as(file):
        try:
            lay_beside(trace, str(named))
        except UserError as error:
            output.status(f"warning: {named} is left out: {error}")


def _outside(trace: Trace, what: str) -> UserError:
    """The error of a time that cannot be meant, with those that can."""
    clocks = [trace.wall_clock(moment) for moment in (trace.begin_ns, trace.end_ns)]
    at = f" ({clocks[0]} to {clocks[1]})" if all(clocks) else ""
    spans = f"it goes from 0 to {trace.seconds(trace.end_ns):,.1f} s{at}"
    return UserError(visible(what), spans, EXIT_USAGE)


def _moment(trace: Trace, option: str, text: str) -> int:
    """CLOCK_MONOTONIC nanoseconds of a time."""
    seconds = seconds_in(text)
    if seconds is not None:
        return trace.begin_ns + round(seconds * 1e9)
    said = f"{option} {text}"
    try:
        found = _wall_clock(text)
    except ValueError:
        raise _outside(trace, f"{said} is neither seconds nor a time") from None
    begin = _utc(trace, trace.begin_ns)
    if begin is None:
        raise _outside(trace, f"{said}: the recording does not have the guest's wall clock")
    if isinstance(found, time):
        return _on_some_day(trace, begin, found, said)
    return _monotonic(trace, begin, found)


def _wall_clock(text: str) -> datetime | time:
    """A date and time, or a time of day, in UTC if it does not say. Raises ValueError."""
    try:
        found: datetime | time = time.fromisoformat(text)
    except ValueError:
        found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _on_some_day(trace: Trace, begin: datetime, found: time, said: str) -> int:
    """The moment of the recording at which it was that time of day, if there is one such."""
    first = begin.astimezone(found.tzinfo).date() - timedelta(days=1)
    days = min((trace.end_ns - trace.begin_ns) // 86_400_000_000_000, 2) + 3
    moments = [
        _monotonic(trace, begin, datetime.combine(first + timedelta(days=day), found))
        for day in range(days)
    ]
    here = [m for m in moments if trace.begin_ns - _NEAR_NS <= m <= trace.end_ns + _NEAR_NS]
    if len(here) > 1:
        raise _outside(trace, f"{said} is on more than one day")
    if not here:
        raise _outside(trace, f"{said} is not in the recording")
    return here[0]


def _utc(trace: Trace, time_ns: int) -> datetime | None:
    """The guest's wall clock at a moment; None if it is not recorded, or cannot be."""
    clock = section(trace.header, "clock")
    if trace.wall_clock(time_ns) is None:
        return None
    since_ns = int(clock["realtime_ns"]) + time_ns - int(clock["monotonic_ns"])
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=since_ns // 1000)


def _monotonic(trace: Trace, begin: datetime, moment: datetime) -> int:
    """CLOCK_MONOTONIC of a wall clock. begin: the wall clock at the recording's begin."""
    return trace.begin_ns + (moment - begin) // timedelta(microseconds=1) * 1000
