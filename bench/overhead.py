# SPDX-License-Identifier: Apache-2.0
"""`make bench`: what recording costs a guest, beside bpftrace with the same probes, and nothing.

In a guest of each of KERNELS, round after round: inflate and deflate with no tracing, with `record`
by each means that the kernel has, and with bpftrace, in an order that rotates. Each time is divided
by that of the same round without tracing. Then the kernel's own statistics of what each program
took, the recorder's costs per event, the ring's losses under a storm, and how long beginning and
ending take. Prints budgets, and exits with 1 if one is missed. argv: rounds.
"""

from __future__ import annotations

import json
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from balloontrace.analysis.confidence import Value, median_interval
from balloontrace.analysis.trace.trace import trace_of
from balloontrace.errors import UserError
from balloontrace.lab.guest import Guest
from balloontrace.lab.image import ensure_image
from balloontrace.lab.kernels import find_kernel
from balloontrace.lab.loads import MIB_PAGES, migrate, move_balloon
from balloontrace.lab.qemu import GuestConfig, choose_accel
from balloontrace.lab.record import start_recorder
from balloontrace.lab.remote import TREE
from balloontrace.recording.reader import Recording, read_recording
from bench.begin_and_end import begin_and_end, means_of
from bench.footprint import compare_attaching
from tools.command import budget, progress, run

ROUNDS = 9
KERNELS = ("6.1", "6.12")
MEMORY_BYTES = 2 << 30
MOVED_PAGES = 1280 * MIB_PAGES
RATIO_BUDGET = 1.03
PASSES = 3
"""In which the kernel counts what the programs take."""
MINIMAL_RSS_BUDGET, ALL_RSS_BUDGET = 12 << 20, 45 << 20
STORMS = 5
RINGS_KIB = (16, 64, 256, 1024, 4096)

_POLL_S = 0.02
_BUSY = "awk '/^cpu / { print $2 + $3 + $4 }' /proc/stat"
UNTIL_IDLE = f"while a=$({_BUSY}); sleep 1; [ $(($({_BUSY}) - a)) -gt 15 ]; do :; done"
"""15 of 200 hundredths of a second: this loop takes some itself."""
_RECORDING = "/root/overhead.btrace"
IN_GUEST = "/root/in_guest.py"


def moved_in(guest: Guest, pages: int) -> float:
    """Seconds until QEMU reports a balloon of `pages`."""
    started = time.monotonic()
    guest.balloon.set_target_pages(pages)
    while guest.balloon.actual_pages() != pages:
        time.sleep(_POLL_S)
    return time.monotonic() - started


@contextmanager
def recording(guest: Guest, *arguments: str) -> Iterator[int]:
    """`balloontrace record` runs meanwhile, with the process id that is given."""
    recorder, attached = start_recorder(guest, _RECORDING, *arguments)
    if not attached:
        raise UserError(f"no recording: {recorder.communicate()[2]}")
    yield recorder.pid
    recorder.send_signal(signal.SIGINT)
    recorder.communicate()


@contextmanager
def bpftrace(guest: Guest, by: str) -> Iterator[None]:
    """bpftrace with the same probes, counting and adding up in the kernel, runs meanwhile.

    by: kprobe or fentry.
    """
    command = f"PYTHONPATH={TREE} python3 {IN_GUEST} --bpftrace {by}"
    tracer = guest.popen(["bpftrace", "-e", guest.run(command).stdout])
    while b"attached" not in (line := tracer.stdout.readline()):
        if not line:
            raise UserError(f"bpftrace did not attach: {tracer.communicate()[2]}")
    yield
    tracer.send_signal(signal.SIGKILL)  # 0.17 misses a SIGINT that comes just before it sleeps
    tracer.communicate()


Tracer = Callable[[], AbstractContextManager[object]]
NONE, RECORD, MINIMAL = "no tracing", "record", "record --minimal"
WAYS = {"inflate": MOVED_PAGES, "deflate": 0}


def tracers_of(guest: Guest) -> dict[str, Tracer]:
    """What can trace there, by name: `record` by each means that the kernel has, and bpftrace."""
    found: dict[str, Tracer] = {NONE: nullcontext}
    for name in means_of(guest):
        found[f"{RECORD}, {name}"] = partial(recording, guest, "--means", name)
    for by in ("kprobe", "fentry"):
        found[f"bpftrace, {by}"] = partial(bpftrace, guest, by)
    return found


def rounds(
    guest: Guest, tracers: Mapping[str, Tracer], wanted: int
) -> dict[str, dict[str, list[float]]]:
    """Way -> tracer -> its seconds, one for each round."""
    seconds: dict[str, dict[str, list[float]]] = {
        way: {tracer: [] for tracer in tracers} for way in WAYS
    }
    names = list(tracers)
    for number in range(wanted + 1):
        progress(f"round {number} of {wanted}")
        for name in (*names[number % len(names) :], *names[: number % len(names)]):
            with tracers[name]():
                guest.run(UNTIL_IDLE)  # tracers and their children have begun
                for way, pages in WAYS.items():
                    took = moved_in(guest, pages)
                    if number:  # the first one only warms up
                        seconds[way][name].append(took)
    return seconds


def ratios(times: Sequence[float], without: Sequence[float]) -> tuple[float, str]:
    """The median of the paired ratios, and its confidence interval as text."""
    paired = [Value(took / bare) for took, bare in zip(times, without, strict=True)]
    interval = median_interval(paired)
    median = statistics.median(value.value for value in paired)
    if interval is None or interval.high is None:
        return median, "-"
    return median, f"{interval.low:.3f} to {interval.high:.3f}"


def compared(
    guest: Guest, tracers: Mapping[str, Tracer], wanted: int
) -> dict[str, dict[str, float]]:
    """The table of ratios: way -> tracer -> its median ratio to no tracing."""
    seconds = rounds(guest, tracers, wanted)
    print(f"\nInflating and deflating {MOVED_PAGES // MIB_PAGES} MiB, {wanted} rounds, paired\n")
    print("| | seconds | ratio to no tracing | 95 % interval |\n|---|---:|---:|---:|")
    found: dict[str, dict[str, float]] = {way: {} for way in seconds}
    for way, by_tracer in seconds.items():
        for name, times in by_tracer.items():
            middle = statistics.median(times)
            found[way][name], interval = ratios(times, by_tracer[NONE])
            print(f"| {way}, {name} | {middle:.2f} | {found[way][name]:.3f} | {interval} |")
    print()
    return found


def overhead(guest: Guest, tracers: Mapping[str, Tracer], wanted: int) -> bool:
    """Whether recording by the best means costs no more than it may."""
    holds = True
    for way, found in compared(guest, tracers, wanted).items():
        least = {name: ratio for name, ratio in found.items() if name.startswith(RECORD)}
        best = min(least, key=least.__getitem__)
        holds &= budget(
            f"{guest.config.kernel}: {way}: {best} takes {least[best]:.3f} of the time, "
            f"at most {RATIO_BUDGET}",
            least[best] <= RATIO_BUDGET,
        )
    return holds


def program_statistics(guest: Guest, tracer: Tracer) -> list[tuple[str, int, float]]:
    """(program, runs, nanoseconds a run) of every program that ran during one inflation and one
    deflation, by the kernel's own account (kernel.bpf_stats_enabled)."""
    with tracer():
        guest.run("sysctl -qw kernel.bpf_stats_enabled=1")
        moved_in(guest, MOVED_PAGES)
        moved_in(guest, 0)
        shown = json.loads(guest.run("bpftool prog show --json").stdout)
        guest.run("sysctl -qw kernel.bpf_stats_enabled=0")
    ran = [program for program in shown if program.get("run_cnt")]
    rows = [(p["name"], p["run_cnt"], p["run_time_ns"] / p["run_cnt"]) for p in ran]
    return sorted(rows, key=lambda row: -row[1] * row[2])


def in_kernel(guest: Guest, tracers: Mapping[str, Tracer]) -> dict[str, float]:
    """What each program takes in the kernel: a table, and tracer -> milliseconds in all.

    The least of some passes, in turn: what disturbs one makes it longer, never shorter.
    """
    passes: dict[str, list[list[tuple[str, int, float]]]] = {}
    for _ in range(PASSES):
        for name, tracer in tracers.items():
            if name != NONE:
                passes.setdefault(name, []).append(program_statistics(guest, tracer))
    print(f"\nIn the kernel, {MOVED_PAGES // MIB_PAGES} MiB in and out, the least of {PASSES}\n")
    print("| tracer | program | runs | ns a run | ms in all |\n|---|---|---:|---:|---:|")
    found = {}
    for name, made in passes.items():
        rows = min(made, key=_total_ms)
        for program, runs, ns in rows:
            print(f"| {name} | {program} | {runs:,} | {ns:,.0f} | {runs * ns / 1e6:.1f} |")
        found[name] = _total_ms(rows)
        print(f"| {name} | all | {sum(runs for _, runs, _ in rows):,} | | {found[name]:.1f} |")
    print()
    return found


def _total_ms(rows: list[tuple[str, int, float]]) -> float:
    return sum(runs * ns for _, runs, ns in rows) / 1e6


def fetched(guest: Guest, path: str = _RECORDING) -> Recording:
    """The recording in a guest, by default the last of this bench."""
    with TemporaryDirectory() as directory:
        local = Path(directory) / "fetched.btrace"
        guest.fetch(path, local)
        return read_recording(str(local))


def storm(guest: Guest) -> None:
    """Compaction moves a balloon that lies between the pages of a file: three events a page."""
    migrate(guest)
    move_balloon(guest, 0)


def losses(guest: Guest) -> bool:
    """Rings of several sizes under the same storm: what is lost, and that all of it is counted."""
    print("\nA storm of page migrations, by size of the ring\n")
    print(
        "| ring | events | lost | events a second, at most | longest gap between reads |"
        " pages migrated: events + lost = vmstat |"
    )
    print("|---:|---:|---:|---:|---:|---|")
    holds = True
    for kib in RINGS_KIB:
        before = guest.vmstat()["balloon_migrate"]
        with recording(guest, "--minimal", "--ring-kib", str(kib)):
            storm(guest)
        migrated = guest.vmstat()["balloon_migrate"] - before
        made = fetched(guest)
        assert made.trailer is not None
        counts = made.trailer["counters"]["migrate"]
        total = counts["written"] + counts["lost"]
        gap = made.trailer["recorder"]["longest_read_gap_s"]
        print(
            f"| {kib} KiB | {made.trailer['events']:,} | {made.trailer['lost_events']:,} "
            f"| {busiest_second(made):,} | {gap:.2f} s "
            f"| {counts['written']:,} + {counts['lost']:,} = {migrated:,} |"
        )
        holds &= total == migrated
    print()
    return budget("every lost migration is counted", holds)


def busiest_second(made: Recording) -> int:
    """The most calls that move pages that began within one second."""
    trace = trace_of(made)
    moved = [
        trace.events(kind)["start_ns"].to_numpy() for kind in ("migrate", "ack", "fill", "leak")
    ]
    starts = np.sort(np.concatenate(moved))
    ends = np.searchsorted(starts, starts + 1_000_000_000)
    return int((ends - np.arange(len(starts))).max(initial=0))


def recorder_costs(guest: Guest) -> bool:
    """The recorder's memory and its CPU time per event, both ways."""
    print(f"\nThe recorder under {STORMS} storms of page migration\n")
    print(
        "| | events | CPU s | CPU s per million events | page cache dirtied | peak RSS "
        "| with its netlink process |"
    )
    print("|---|---:|---:|---:|---:|---:|---:|")
    peaks = {}
    for name, arguments in ((RECORD, ()), (MINIMAL, ("--minimal",))):
        with recording(guest, *arguments) as pid:
            guest.run(UNTIL_IDLE)
            begun_s = cpu_s(guest, pid)
            for _ in range(STORMS):
                storm(guest)
            helper = guest.run(
                "pid=$(pgrep -f '[t]racers.record.netlink') && grep VmHWM /proc/$pid/status",
                check=False,
            ).stdout.split()
        made = fetched(guest)
        made_bytes = int(guest.run(["stat", "-c", "%s", _RECORDING]).stdout)
        assert made.trailer is not None
        own, events = made.trailer["recorder"], made.trailer["events"]
        used_s = own["cpu_s"] - begun_s
        both = own["rss_peak_bytes"] + (int(helper[1]) * 1024 if helper else 0)
        peaks[name] = (own["rss_peak_bytes"], both)
        print(
            f"| {name} | {events:,} | {used_s:.2f} | {used_s / events * 1e6:.1f} "
            f"| {made_bytes / 2**20:.2f} MiB "
            f"| {own['rss_peak_bytes'] / 2**20:.1f} MiB | {both / 2**20:.1f} MiB |"
        )
    print()
    minimal, everything = peaks[MINIMAL][0], peaks[RECORD][1]
    holds = budget(
        f"{MINIMAL}: {minimal / 2**20:.1f} of {MINIMAL_RSS_BUDGET >> 20} MiB",
        minimal <= MINIMAL_RSS_BUDGET,
    )
    of_all = f"{everything / 2**20:.1f} of {ALL_RSS_BUDGET >> 20} MiB"
    return holds & budget(
        f"{RECORD}, with its netlink process: {of_all}",
        everything <= ALL_RSS_BUDGET,
    )


def where_memory_is(guest: Guest) -> None:
    """The recorder's resident memory by what is mapped, beside a Python that does nothing."""
    print("\nResident memory of record --minimal, by what is mapped (smaps)\n")
    print("| | KiB |\n|---|---:|")
    with recording(guest, "--minimal") as pid:
        smaps = guest.run(["cat", f"/proc/{pid}/smaps"]).stdout
    for what, kib in resident_kib(smaps).most_common():
        print(f"| {what} | {kib:,} |")
    idle = ["python3", "-S", "-c", "print(open('/proc/self/status').read())"]
    status = dict(line.split(":", 1) for line in guest.run(idle).stdout.split("\n") if line)
    idle_kib = int(status["VmRSS"].split()[0])
    print(f"| for comparison: python3 -S that does nothing, in all | {idle_kib:,} |")


def resident_kib(smaps: str) -> Counter[str]:
    """What is mapped -> its resident KiB."""
    kinds = {
        ".so": "shared libraries",  # Python's own among them
        "python3": "Python's own code and data",
        "anon_inode:bpf-map": "the ring",
    }
    found: Counter[str] = Counter()
    what = ""
    for line in smaps.splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            path = rest[4] if len(rest) > 4 else "[heap]"
            other = "shared libraries" if path.startswith("/") else "Python's objects, and stacks"
            what = next((kind for key, kind in kinds.items() if key in path), other)
        elif first == "Rss:":
            found[what] += int(rest[0])
    return found


def cpu_s(guest: Guest, pid: int) -> float:
    """CPU seconds a process in the guest has used by now."""
    stat = guest.run(["cat", f"/proc/{pid}/stat"]).stdout
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def cost_of_tracing(kernel: str, wanted: int) -> bool:
    """The tables of one kernel: the ratios, and what the programs take."""
    config = GuestConfig(kernel, memory_bytes=MEMORY_BYTES)
    image = ensure_image(find_kernel(kernel), progress)
    with Guest(image, config, progress) as guest:
        machine = f"{config.cpus} CPUs, {MEMORY_BYTES >> 30} GiB"
        print(f"\nLinux {image.release}, {choose_accel()}, {machine}")
        guest.install_balloontrace()
        guest.run(f"cat > {IN_GUEST}", input=Path(__file__).with_name("in_guest.py").read_text())
        tracers = tracers_of(guest)
        holds = overhead(guest, tracers, wanted)
        in_kernel(guest, tracers)
    return holds


def main() -> int:
    """Print all tables; 1 if a budget is missed."""
    wanted = int(sys.argv[1]) if sys.argv[1:] else ROUNDS
    results = [cost_of_tracing(kernel, wanted) for kernel in KERNELS]
    image = ensure_image(find_kernel("6.1"), progress)
    with Guest(image, GuestConfig(memory_bytes=1 << 30), progress) as guest:
        guest.install_balloontrace()
        results += [recorder_costs(guest)]
        where_memory_is(guest)
        results += [losses(guest)]
    results += [compare_attaching(), begin_and_end()]
    return 0 if all(results) else 1


if __name__ == "__main__":
    run("bench", main)
