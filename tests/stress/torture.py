# SPDX-License-Identifier: Apache-2.0
"""`make torture`: what befalls a recording in a guest that suffers, and what is left of it.

A storm of OOM notifications, SIGKILL at random moments, a power loss, every other way of ending,
suspend, a CPU that goes and comes, and a clock that is set. Each is done to a real recording in a
real guest, and its numbers are compared with the guest's /proc/vmstat. Prints one line for each;
exits with 1 if one failed. argv: minutes of the storm (5), number of kills (100).
"""

from __future__ import annotations

import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from balloontrace.analysis.report import Report, build
from balloontrace.errors import UserError
from balloontrace.lab import hog
from balloontrace.lab.guest import Guest, image_of
from balloontrace.lab.loads import MEMORY_BYTES, MIB_PAGES, move_balloon, suspend
from balloontrace.lab.qemu import GuestConfig, choose_accel
from balloontrace.lab.record import start_recorder
from balloontrace.lab.remote import RemoteProcess
from balloontrace.lab.repeat import Repeat
from balloontrace.recording.reader import read_recording
from tools.command import budget, progress, run

STORM_PAGES = MEMORY_BYTES // 4096 * 3 // 4
RESEND_S = 0.2
HOG_PAGES = 64 * MIB_PAGES
HOG_MIB_PER_S = 4
LATEST_KILL_S = 6.0
"""After exec: before the probes are attached, while they are, and long after."""

_RECORDING = "/root/torture.btrace"
_ATTACHED = (
    "cat /sys/kernel/debug/kprobes/list; "
    "bpftool prog list | grep -E 'kprobe|tracepoint|tracing'; ls -A /sys/fs/bpf"
)


class Torture:
    """One guest, and what is done to recordings in it."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest

    def start(self, *arguments: str, path: str = _RECORDING) -> RemoteProcess:
        """`balloontrace record`, attached. Raises UserError."""
        recorder, attached = start_recorder(self.guest, path, *arguments)
        if not attached:
            raise UserError(f"no recording: {recorder.communicate()[2]}")
        return recorder

    def report(self, path: str = _RECORDING) -> Report:
        """The report of a recording in the guest. Raises UserError if it cannot be read."""
        with TemporaryDirectory() as directory:
            local = Path(directory) / "torture.btrace"
            self.guest.fetch(path, local)
            return build(str(local))

    def nothing_stays(self) -> bool:
        """Whether, a moment later, nothing is attached, no program loaded, nothing pinned."""
        wait = f'until [ -z "$({_ATTACHED})" ]; do sleep 0.1; done'
        return self.guest.run(["timeout", "20", "sh", "-c", wait], check=False).returncode == 0


def exact(report: Report) -> bool:
    """Complete, nothing lost, equal to /proc/vmstat to the page."""
    facts, checked = report.recording.scalars, report.results["reconciliation"].scalars
    return bool(facts["complete"] and not facts["lost_events"] and checked["exact"])


def storm(torture: Torture, minutes: float) -> bool:
    """The guest's OOM killer asks the balloon again and again, and the host takes again."""
    guest = torture.guest
    move_balloon(guest, STORM_PAGES)
    kills = guest.vmstat()["oom_kill"]
    recorder = torture.start()
    end_s = time.monotonic() + 60 * minutes
    with Repeat(lambda: guest.balloon.set_target_pages(STORM_PAGES), RESEND_S):
        while time.monotonic() < end_s:
            program = hog.until_given_back(HOG_PAGES, limit_s=60, mib_per_s=HOG_MIB_PER_S)
            guest.run(["python3", "-c", program], check=False)
    move_balloon(guest, 0)
    recorder.send_signal(signal.SIGINT)
    status = recorder.communicate()[0]
    report = torture.report()
    oom, own = report.results["oom"].scalars, report.results["recorder"].scalars
    return budget(
        f"{minutes:.0f} minutes of OOM: {oom['notifier_calls']:,} notifications, "
        f"{oom['notifier_pages']:,} pages, {guest.vmstat()['oom_kill'] - kills} killed; recorder "
        f"ended with {status}, longest gap between reads {own['longest_read_gap_s']:.2f} s, exact",
        status == 0 and exact(report),
    )


@contextmanager
def moving(guest: Guest) -> Iterator[None]:
    """The balloon moves meanwhile, to and fro."""
    targets = (100 * MIB_PAGES, 400 * MIB_PAGES)
    turn = iter(range(1 << 30))
    with Repeat(lambda: guest.balloon.set_target_pages(targets[next(turn) % 2]), 1.0):
        yield


def killed_once(torture: Torture, after_s: float) -> str:
    """Record, SIGKILL after so many seconds; what was left, in a word or two."""
    guest = torture.guest
    guest.run(["rm", "-f", _RECORDING])
    recorder = guest.popen(["balloontrace", "record", "-o", _RECORDING])
    time.sleep(after_s)
    recorder.send_signal(signal.SIGKILL)
    recorder.communicate()
    if not torture.nothing_stays():
        return "STILL ATTACHED"
    if int(guest.run(f"stat -c %s {_RECORDING} || echo 0", check=False).stdout.split()[0]) == 0:
        return "killed before it attached"
    with TemporaryDirectory() as directory:
        local = Path(directory) / "torture.btrace"
        guest.fetch(_RECORDING, local)
        try:
            recording = read_recording(str(local))
        except UserError as error:
            # The very first block was being written.
            return "killed at its header" if local.stat().st_size < 8192 else f"UNREADABLE: {error}"
        torn = sum(damage.length for damage in recording.damage)
        if len(recording.damage) > 1 or recording.missing_blocks:
            return "DAMAGED BEFORE ITS END"
        agrees = build(str(local)).results["reconciliation"].scalars["agrees"]
    if agrees is False:
        return "DISAGREES WITH VMSTAT"
    return "readable, its last block torn" if torn else "readable to its end"


def kills(torture: Torture, number: int) -> bool:
    """SIGKILL at random moments while the balloon moves."""
    outcomes: Counter[str] = Counter()
    dice = random.Random(1)  # the same moments in every run
    torture.start().kill_group()  # what has to be compiled is compiled
    with moving(torture.guest):
        for count in range(number):
            if count % 10 == 0:
                progress(f"kill {count} of {number}")
            outcomes[killed_once(torture, dice.uniform(0, LATEST_KILL_S))] += 1
    said = ", ".join(f"{times} {what}" for what, times in outcomes.most_common())
    bad = [what for what in outcomes if what[:2].isupper()]
    return budget(f"{number} times SIGKILL: {said}", not bad)


def power_loss(torture: Torture) -> bool:
    """The power fails while the balloon moves; what `--sync` had brought to the disk is there."""
    guest = torture.guest
    torture.start("--sync")
    with moving(guest):
        time.sleep(8)  # of recording: not something to wait for
        cut_ns = guest.monotonic_ns()
    guest.power_cycle()
    guest.install_balloontrace()
    with TemporaryDirectory() as directory:
        local = Path(directory) / "torture.btrace"
        guest.fetch(_RECORDING, local)
        recording = read_recording(str(local))
        agrees = build(str(local)).results["reconciliation"].scalars["agrees"]
    last_ns = recording.samples[-1]["t_ns"] if recording.samples else 0
    missing_s = (cut_ns - last_ns) / 1e9
    return budget(
        f"power loss with --sync: the last {max(0.0, missing_s):.2f} s are missing, "
        f"{len(recording.damage)} torn blocks, agrees with vmstat: {agrees}",
        missing_s <= 1.5 and agrees is not False,
    )


def endings(torture: Torture) -> bool:
    """Every way of ending leaves nothing attached, loaded or pinned."""
    guest = torture.guest
    results = []
    for name, number in (
        ("SIGINT", signal.SIGINT),
        ("SIGTERM", signal.SIGTERM),
        ("SIGHUP", signal.SIGHUP),
        ("SIGKILL", signal.SIGKILL),
    ):
        recorder = torture.start()
        assert guest.run(_ATTACHED).stdout  # else looking for what stays would find nothing
        recorder.send_signal(number)
        recorder.communicate()
        results.append((name, torture.nothing_stays()))
    guest.run("mkdir -p /mnt/full; mount -t tmpfs -o size=16k none /mnt/full")
    for name, command in (
        ("-d", "balloontrace record -f -d 1s -o /root/x"),
        ("COMMAND", "balloontrace record -f -o /root/x -- true"),
        ("a closed pipe", "balloontrace record -o - | head -c 8 > /dev/null"),
        ("a full disk", "balloontrace record -f -o /mnt/full/x"),
    ):
        guest.run(command, check=False)
        results.append((name, torture.nothing_stays()))
    guest.run("umount /mnt/full")
    said = ", ".join(name if clean else f"NOT AFTER {name}" for name, clean in results)
    return budget(
        f"nothing stays attached, loaded or pinned after {said}", all(c for _, c in results)
    )


def _hotplug(guest: Guest) -> None:
    for state in (0, 1):
        guest.run(f"echo {state} > /sys/devices/system/cpu/cpu1/online")
        move_balloon(guest, (300 - 200 * state) * MIB_PAGES)


def _clock(guest: Guest) -> None:
    for date in ("2031-01-01", "2021-01-01"):
        guest.run(f"date -s {date} > /dev/null")
        move_balloon(guest, (300 if date > "2030" else 100) * MIB_PAGES)
    guest.run(f"date -s @{time.time():.0f} > /dev/null")


def _stopped(guest: Guest) -> None:
    guest.balloon.set_target_pages(300 * MIB_PAGES)
    guest.monitor.execute("stop")
    time.sleep(3)  # is what is done to it
    guest.monitor.execute("cont")
    move_balloon(guest, 300 * MIB_PAGES)


DISTURBANCES: dict[str, Callable[[Guest], None]] = {
    "suspend to RAM (S3) and resume": suspend,
    "QMP stop and cont while it inflates": _stopped,
    "a CPU taken offline and back": _hotplug,
    "the clock set 5 years ahead and 10 back": _clock,
}


def disturbed(torture: Torture) -> bool:
    """What may happen to a guest: times stay monotonic, and the totals exact."""
    holds = True
    for name, disturb in DISTURBANCES.items():
        recorder = torture.start()
        disturb(torture.guest)
        move_balloon(torture.guest, 0)
        recorder.send_signal(signal.SIGINT)
        recorder.communicate()
        report = torture.report()
        span_s = report.recording.scalars["duration_s"]
        holds &= budget(f"{name}: exact, over {span_s:.0f} s", exact(report) and 0 < span_s < 600)
    return holds


def main() -> int:
    """Do it all; 1 if something failed."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    number = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    config = GuestConfig(memory_bytes=MEMORY_BYTES)
    image = image_of(config, progress)
    with Guest(image, config, progress) as guest:
        guest.install_balloontrace()
        print(f"Linux {image.release}, {choose_accel()}, {config.cpus} CPUs, 1 GiB\n")
        torture = Torture(guest)
        results = [disturbed(torture), endings(torture), storm(torture, minutes)]
        results += [kills(torture, number), power_loss(torture)]
    return 0 if all(results) else 1


if __name__ == "__main__":
    run("torture", main)
