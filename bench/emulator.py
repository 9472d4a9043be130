# SPDX-License-Identifier: Apache-2.0
"""`make bench-emulator`: how often the emulator that is there kills a guest, and how fast it is.

Boots guests, two at a time; then kills recordings in two guests side by side while their balloons
move, for that is when the kernel patches its own code most. With all vCPUs in one host thread, and
with a thread for each. Prints one row for each; a guest that died is replaced. argv: boots (40),
kills (40). Another QEMU is one that stands before it in PATH.
"""

from __future__ import annotations

import random
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from balloontrace.errors import UserError
from balloontrace.lab.guest import Guest
from balloontrace.lab.image import Image, ensure_image
from balloontrace.lab.kernels import find_kernel
from balloontrace.lab.loads import MEMORY_BYTES
from balloontrace.lab.qemu import GuestConfig
from balloontrace.lab.remote import GuestDied, GuestHung
from tests.stress.torture import LATEST_KILL_S, Torture, killed_once, moving
from tools.command import progress, run

ACCELS = {"tcg": "multi", "tcg-single": "single"}
BOOTED = "6.12"
KILLED = "6.1"
SIDE_BY_SIDE = 2

_HEAD = (
    f"QEMU | threads | boots of {BOOTED} | died | s a boot "
    f"| kills on {KILLED} | guests died | s a kill"
)


@dataclass
class Tally:
    """What happened, by several threads: how long each thing took, and the guests that died."""

    seconds: list[float] = field(default_factory=list)
    deaths: list[str] = field(default_factory=list)
    emulator: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, started: float, guest: Guest) -> None:
        """One more, begun then, ended now, in that guest."""
        with self.lock:
            self.seconds.append(time.monotonic() - started)
            if not self.emulator:
                version = guest.monitor.execute("query-version")["qemu"]
                self.emulator = ".".join(str(version[p]) for p in ("major", "minor", "micro"))

    def died(self, death: UserError) -> None:
        """A guest died or hung."""
        progress(str(death))
        with self.lock:
            self.deaths.append(death.message)

    def cells(self) -> list[str]:
        """How many, how many deaths, the median of the seconds."""
        median = f"{statistics.median(self.seconds):.1f}" if self.seconds else "-"
        return [f"{len(self.seconds) + len(self.deaths)}", f"{len(self.deaths)}", median]


class Boots:
    """Boots guests of one accelerator; every death of the emulator is one, booted again or not."""

    def __init__(self, accel: str, tally: Tally) -> None:
        self._config = GuestConfig(BOOTED, accel=accel)
        self._image = ensure_image(find_kernel(BOOTED), progress)
        self._tally = tally

    def once(self, _: int) -> None:
        """Boot a guest, log in, and end it."""
        said: list[str] = []
        started = time.monotonic()
        try:
            with Guest(self._image, self._config, said.append) as guest:
                self._tally.note(started, guest)
        except (GuestDied, GuestHung) as death:
            self._tally.died(death)
        for text in said:
            self._tally.died(UserError(text))


def kills(accel: str, image: Image, number: int, seed: int, tally: Tally) -> None:
    """Kill so many recordings at random moments, in one guest after the other if they die."""
    dice = random.Random(seed)
    config = GuestConfig(KILLED, memory_bytes=MEMORY_BYTES, accel=accel)
    left = number
    while left > 0:
        try:
            with Guest(image, config, progress) as guest:
                guest.install_balloontrace()
                torture = Torture(guest)
                torture.start().kill_group()  # what has to be compiled is compiled
                with moving(guest):
                    while left > 0:
                        left -= 1
                        started = time.monotonic()
                        killed_once(torture, dice.uniform(0, LATEST_KILL_S))
                        tally.note(started, guest)
        except (GuestDied, GuestHung) as death:
            left -= 1  # a guest that does not come up is a try, too
            tally.died(death)


def main() -> int:
    """Print the table; 1 if a guest died."""
    booted = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    killed = int(sys.argv[2]) if len(sys.argv) > 2 else 40
    image = ensure_image(find_kernel(KILLED), progress)
    print(f"| {_HEAD} |\n|{'---|' * (_HEAD.count('|') + 1)}")
    died = 0
    for accel, threads in ACCELS.items():
        boots, ended = Tally(), Tally()
        with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            progress(f"{booted} boots, vCPU threads: {threads}")
            list(pool.map(Boots(accel, boots).once, range(booted)))
            progress(f"{killed} kills, vCPU threads: {threads}")
            each = killed // SIDE_BY_SIDE
            work = [(accel, image, each, seed, ended) for seed in range(SIDE_BY_SIDE)]
            list(pool.map(lambda given: kills(*given), work))
        row = [boots.emulator or ended.emulator, threads, *boots.cells(), *ended.cells()]
        print(f"| {' | '.join(row)} |", flush=True)
        died += len(boots.deaths) + len(ended.deaths)
    return 1 if died else 0


if __name__ == "__main__":
    run("bench-emulator", main)
