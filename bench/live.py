# SPDX-License-Identifier: Apache-2.0
"""`make bench-live`: what `balloontrace live` costs at 0, 1,000 and 30,000 events a second.

A generated stream of a guest whose shrinker takes back what goes in is written into its pipe at
that rate, by the clock. Then a day of 1,000 events a second, as fast as it is read: memory after an
hour and at the end. And the screen, on a terminal of 80 by 24: the bytes that it is sent. Prints
budgets, and exits with 1 if one is missed. argv: seconds of each rate.
"""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from balloontrace import events
from balloontrace.recording.writer import Writer
from tests.unit.builders import Built, ns
from tools.command import budget, run

RATES = (0, 1_000, 30_000)
SECONDS = 30
HOUR_S, DAY_S, DAY_RATE = 3_600, 86_400, 20
CPU_BUDGET, RSS_BUDGET, GROWTH_BUDGET = 0.25, 48 << 20, 2 << 20
"""Of one CPU, at the highest rate; bytes at any; bytes from an hour to a day."""

SCREEN_SIZE = (24, 80)
SCREEN_RATE = 1_000
LINE_BUDGET = 960
"""Bytes a second: what 9,600 baud carry."""

_PIECES = 10
"""Of a second, as a recorder is woken in a storm."""

_CALLS = ("fill", "leak")


def span(second: float, rate: int) -> bytes:
    """The events of a tenth of a second: as much out by reclaim as in."""
    made, count = [], rate // _PIECES
    for number in range(count):
        at = ns(second + number / max(1, rate))
        kind = _CALLS[number % 2]
        within = events.number_of(events.WITHIN, "worker" if kind == "fill" else "scan")
        number_of = events.number_of(events.KINDS, kind)
        made.append(
            events.pack(
                start_ns=at, duration_ns=20_000, asked=256, done=256, tid=77, pid=77,
                kind=number_of, within=within, comm=b"kswapd0",
            )
        )  # fmt: skip
    return b"".join(made)


def stream(descriptor: int, rate: int, seconds: int) -> Iterator[int]:
    """Write so many seconds of a recording, a second at each step."""
    writer = Writer(descriptor)
    writer.header(Built().header)
    moved = 0
    for second in range(seconds):
        for piece in range(_PIECES):
            if rate:
                writer.events(span(second + piece / _PIECES, rate))
        moved += rate // 2 * 256
        vmstat = {"balloon_inflate": moved, "balloon_deflate": moved, "balloon_migrate": 0}
        meminfo = {"MemTotal": 4 << 30, "MemAvailable": 1 << 30, "MemFree": 1 << 29}
        psi = {"memory": {"some_us": second * 1000, "full_us": second * 500}}
        sample = {"t_ns": ns(second + 0.95), "vmstat": vmstat, "meminfo": meminfo, "psi": psi}
        writer.sample(sample)
        yield second


class Live:
    """`live --json` reading from a pipe. descriptor: of its other end."""

    def __init__(self) -> None:
        reader, self.descriptor = os.pipe()
        command = [sys.executable, "-m", "balloontrace", "live", "--json", "-"]
        self._process = subprocess.Popen(command, stdin=reader, stdout=subprocess.DEVNULL)
        os.close(reader)

    def cpu_s(self) -> float:
        """It has taken so far."""
        fields = self._read("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_bytes(self) -> int:
        """Resident now."""
        return int(self._read("statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def end(self) -> None:
        """Close its pipe, and wait for it."""
        os.close(self.descriptor)
        self._process.wait()

    def _read(self, name: str) -> str:
        return Path(f"/proc/{self._process.pid}/{name}").read_text()


def at_rate(rate: int, seconds: int) -> tuple[float, int, float]:
    """CPUs that it takes, without its start, bytes at the end, and events a second that were
    written: this machine may not make more."""
    live = Live()
    begun_s = cpu_s = 0.0
    for second in stream(live.descriptor, rate, seconds):
        if second == 1:
            begun_s, cpu_s = time.monotonic() - 1, live.cpu_s()
        if second >= 1:
            time.sleep(max(0.0, begun_s + second + 1 - time.monotonic()))
    took_s = time.monotonic() - begun_s - 1
    used, memory = (live.cpu_s() - cpu_s) / took_s, live.rss_bytes()
    live.end()
    return used, memory, rate * (seconds - 1) / took_s


def on_a_terminal(seconds: int) -> float:
    """Bytes a second that the screen sends to its terminal, after the first picture."""
    reader, writer = os.pipe()
    process, terminal = pty.fork()
    if not process:
        os.dup2(reader, 0)
        os.close(writer)
        command = [sys.executable, "-m", "balloontrace", "live", "-"]
        os.execv(sys.executable, command)
    os.close(reader)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", *SCREEN_SIZE, 0, 0))
    sent = [0]

    def read() -> None:
        try:
            while data := os.read(terminal, 1 << 16):
                sent[0] += len(data)
        except OSError:  # it has ended
            pass

    thread = threading.Thread(target=read)
    thread.start()
    settled, before, begun_s = 5, 0, time.monotonic()
    for second in stream(writer, SCREEN_RATE, seconds + settled):
        time.sleep(max(0.0, begun_s + second + 1 - time.monotonic()))
        if second == settled:
            before = sent[0]
    took = (sent[0] - before) / (seconds - 1)
    os.close(writer)
    os.write(terminal, b"q")
    os.waitpid(process, 0)
    os.close(terminal)
    thread.join()
    return took


def in_a_day() -> int:
    """Bytes by which it grows from the first hour of a day to its end."""
    live = Live()
    after_hour = 0
    for second in stream(live.descriptor, DAY_RATE, DAY_S):
        if second == HOUR_S:
            after_hour = live.rss_bytes()
    growth = live.rss_bytes() - after_hour
    live.end()
    return growth


def main() -> int:
    """Measure and print; returns the exit status."""
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    print("events/s  CPU %  MiB")
    holds = True
    for rate in RATES:
        used, memory, written = at_rate(rate, seconds)
        print(f"{written:8,.0f}  {used * 100:5.1f}  {memory / 2**20:3.0f}", flush=True)
        holds &= budget(f"at most {CPU_BUDGET:.0%} of a CPU", used <= CPU_BUDGET)
        holds &= budget(f"at most {RSS_BUDGET >> 20} MiB", memory <= RSS_BUDGET)
    line = on_a_terminal(seconds)
    said = f"the screen sends {line:,.0f} bytes a second at {SCREEN_RATE:,} events a second"
    holds &= budget(f"{said}, at most {LINE_BUDGET}", line <= LINE_BUDGET)
    growth = in_a_day()
    said = f"a day of {DAY_RATE} events a second adds {growth / 2**20:.1f} MiB to its first hour"
    holds &= budget(f"{said}, at most {GROWTH_BUDGET >> 20}", growth <= GROWTH_BUDGET)
    return 0 if holds else 1


if __name__ == "__main__":
    run("bench-live", main)
