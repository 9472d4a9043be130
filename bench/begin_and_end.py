# SPDX-License-Identifier: Apache-2.0
"""How long a recording takes to begin and to end, by each means; a part of `make bench`."""

from __future__ import annotations

import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from balloontrace.errors import UserError
from balloontrace.lab.guest import Guest
from balloontrace.lab.image import ensure_image
from balloontrace.lab.kernels import Kernel, find_kernel
from balloontrace.lab.loads import MIB_PAGES, move_balloon
from balloontrace.lab.qemu import GuestConfig
from balloontrace.lab.record import start_recorder
from balloontrace.tracers.attach.means import MEANS
from tools.command import budget, progress

ROUNDS = 5
TRAILER_BUDGET_S = 0.3
_RECORDED_S = 3.0
"""Longer than its netlink process takes to begin: what a recording waits for that ends sooner."""
_RECORDING = "/root/begin.btrace"
_MOVED_PAGES = 256 * MIB_PAGES


def kernels() -> list[Kernel]:
    """Those of the lab that differ in this, and Debian's for real time, whose locks sleep."""
    ordinary = find_kernel("6.1")
    real_time = replace(
        ordinary, name="6.1-rt", image="linux-image-rt-amd64", headers="linux-headers-rt-amd64"
    )
    return [ordinary, find_kernel("6.12"), real_time]


def means_of(guest: Guest) -> list[str]:
    """The means that the guest's kernel has."""
    found = []
    for means in MEANS:
        command = f"balloontrace record -f -d 100ms -o {_RECORDING} --means {means.name}"
        if guest.run(command, check=False).returncode == 0:
            found.append(means.name)
    return found


@contextmanager
def moving(guest: Guest) -> Iterator[None]:
    """The balloon goes in and out meanwhile, and is empty afterwards."""
    over = threading.Event()

    def move() -> None:
        while not over.is_set():
            for pages in (_MOVED_PAGES, 0):
                move_balloon(guest, pages)

    mover = threading.Thread(target=move)
    mover.start()
    try:
        yield
    finally:
        over.set()
        mover.join()


def times(guest: Guest, means: str) -> tuple[float, float, float]:
    """Seconds from the command to attached, and from SIGINT to what is said after the trailer, and
    to the end, beside a moving balloon; _RECORDED_S are recorded."""
    with moving(guest):
        begun = time.monotonic()
        recorder, attached = start_recorder(
            guest, _RECORDING, "--means", means, stderr=subprocess.STDOUT
        )
        if not attached:
            raise UserError(f"no recording: {recorder.communicate()[2]}")
        attached_s = time.monotonic() - begun
        time.sleep(_RECORDED_S)
        begun = time.monotonic()
        recorder.send_signal(signal.SIGINT)
        while b"wrote" not in (line := recorder.stdout.readline()):
            if not line:
                raise UserError("the recorder ended without a word")
        trailer_s = time.monotonic() - begun
        recorder.communicate()
        return attached_s, trailer_s, time.monotonic() - begun


def begin_and_end() -> bool:
    """The table, and whether the best means on 6.12 has its trailer in time."""
    print("\nBeginning and ending beside a moving balloon, medians\n")
    print("| kernel | means | command to attached | SIGINT to the trailer | to the end |")
    print("|---|---|---:|---:|---:|")
    trailers: dict[str, float] = {}
    for kernel in kernels():
        config = GuestConfig(kernel.name)
        progress(f"beginning and ending: a guest of {kernel.name}")
        with Guest(ensure_image(kernel, progress), config, progress) as guest:
            guest.install_balloontrace()
            for means in means_of(guest):
                measured = [times(guest, means) for _ in range(ROUNDS)]
                begin_s, trailer_s, end_s = map(statistics.median, zip(*measured, strict=True))
                cells = " | ".join(f"{seconds:.2f} s" for seconds in (begin_s, trailer_s, end_s))
                print(f"| {kernel.name} | {means} | {cells} |", flush=True)
                trailers[kernel.name] = min(trailer_s, trailers.get(kernel.name, trailer_s))
    print()
    return budget(
        f"6.12: from SIGINT to the trailer {trailers['6.12']:.2f} of {TRAILER_BUDGET_S} s",
        trailers["6.12"] <= TRAILER_BUDGET_S,
    )
