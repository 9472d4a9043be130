# SPDX-License-Identifier: Apache-2.0
"""`make soak`: an hour of recording under load. The recorder's memory stays what it was, and the
file grows with the events. argv: minutes (60).
"""

from __future__ import annotations

import signal
import sys
import time

from balloontrace.lab.guest import Guest, image_of
from balloontrace.lab.loads import MEMORY_BYTES, migrate, move_balloon
from balloontrace.lab.qemu import GuestConfig, choose_accel
from tests.stress.torture import Torture, exact
from tools.command import budget, progress, run

ROWS = 12
RSS_GROWTH_BUDGET = 256 << 10
BYTES_AN_EVENT_BUDGET = 24

_RECORDING = "/root/torture.btrace"


def resident_bytes(guest: Guest, pid: int) -> int:
    """RSS of a process in the guest."""
    return int(guest.run(["grep", "VmRSS", f"/proc/{pid}/status"]).stdout.split()[1]) * 1024


def floor_growth(resident: list[int]) -> int:
    """Bytes by which the least of the later half exceeds that of the first: what leaks stays, and
    the block that is being compressed at the moment of looking does not count."""
    middle = len(resident) // 2
    return min(resident[middle:]) - min(resident[:middle])


def soak(torture: Torture, minutes: float) -> bool:
    """Storms of migration, one after the other, and a row of the table now and then."""
    guest = torture.guest
    recorder = torture.start("--ring-kib", "4096")
    print("| minute | storms | recording | RSS |\n|---:|---:|---:|---:|")
    started, storms, resident = time.monotonic(), 0, []
    for row in range(1, ROWS + 1):
        while storms == 0 or time.monotonic() < started + 60 * minutes * row / ROWS:
            migrate(guest)
            move_balloon(guest, 0)
            storms += 1
        size = int(guest.run(["stat", "-c", "%s", _RECORDING]).stdout)
        resident.append(resident_bytes(guest, recorder.pid))
        minute = (time.monotonic() - started) / 60
        print(f"| {minute:.0f} | {storms} | {size:,} bytes | {resident[-1] / 2**20:.2f} MiB |")
        sys.stdout.flush()
    recorder.send_signal(signal.SIGINT)
    recorder.communicate()
    report = torture.report()
    facts = report.recording.scalars
    size = int(guest.run(["stat", "-c", "%s", _RECORDING]).stdout)
    print()
    growth = floor_growth(resident)
    holds = budget(
        f"RSS in the later half, at least, less that in the first: {growth / 1024:.0f} KiB",
        growth <= RSS_GROWTH_BUDGET,
    )
    holds &= budget(
        f"{facts['events']:,} events in {size:,} bytes: {size / facts['events']:.1f} bytes each",
        size / facts["events"] <= BYTES_AN_EVENT_BUDGET,
    )
    return holds & budget("complete, nothing lost, equal to /proc/vmstat", exact(report))


def main() -> int:
    """Run it; 1 if something grew."""
    minutes = float(sys.argv[1]) if sys.argv[1:] else 60.0
    config = GuestConfig(memory_bytes=MEMORY_BYTES)
    image = image_of(config, progress)
    with Guest(image, config, progress) as guest:
        guest.install_balloontrace()
        print(f"Linux {image.release}, {choose_accel()}, {config.cpus} CPUs, 1 GiB\n")
        return 0 if soak(Torture(guest), minutes) else 1


if __name__ == "__main__":
    run("soak", main)
