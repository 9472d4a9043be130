# SPDX-License-Identifier: Apache-2.0
"""`make bench-footprint`: what tracing costs a guest, beside what one would use instead.

Prints the budgets and whether they hold; exits with 1 if one does not.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from balloontrace import bundle
from balloontrace.lab.guest import Guest, image_of
from balloontrace.lab.image import ensure_image
from balloontrace.lab.kernels import find_kernel
from balloontrace.lab.qemu import GuestConfig, choose_accel
from balloontrace.lab.remote import TREE
from balloontrace.lab.run import run_scenario
from balloontrace.lab.scenario import find_scenario
from balloontrace.recording.reader import read_recording
from bench.in_guest import BPFTRACE, COMPILED, ONE_FILE, OURS, PLAIN_BCC, PYZ
from tools.command import budget, progress, run

RSS_BUDGET = 16 << 20
ROUNDS = 5
ONE_FILE_ROUNDS = 15
_SCRIPT = "/root/in_guest.py"


def attach_times(
    guest: Guest, one_file: bytes, rounds: int = ROUNDS, tools: Sequence[str] = ()
) -> dict[str, list[dict[str, float]]]:
    """Tool -> its measurements, alternating in one warm guest. tools: by default all, which takes
    the tree in the guest: plain BCC compiles the source, and the one file has none."""
    guest.push(one_file, f"cat > {PYZ}")
    guest.run(f"cat > {_SCRIPT}", input=Path(__file__).with_name("in_guest.py").read_text())
    modules = PYZ if tools else TREE
    command = ["env", f"PYTHONPATH={modules}", "python3", _SCRIPT, str(rounds), *tools]
    done = guest.run(command, timeout_s=3600)
    found: dict[str, list[dict[str, float]]] = {}
    for line in done.stdout.splitlines():
        result = json.loads(line)
        found.setdefault(result["tool"], []).append(result)
    return found


def compare_attaching() -> bool:
    """Exec to attached and resident memory, of balloontrace, plain BCC and bpftrace."""
    config = GuestConfig(headers=True)
    image = image_of(config, progress)
    progress("exec to attached: booting a guest")
    with Guest(image, config, progress) as guest:
        rounds = f"{ROUNDS} alternating rounds, medians; plain BCC once"
        print(f"kernel {image.release}, {choose_accel()}, {rounds}\n")
        guest.install_balloontrace()
        times = attach_times(guest, bundle.made())
    median = {tool: statistics.median(r["seconds"] for r in runs) for tool, runs in times.items()}
    memory = {tool: max(r["rss_bytes"] for r in runs) for tool, runs in times.items()}
    print(f"  {'':36}{'exec to attached':>18}{'RSS attached':>15}")
    for tool in (ONE_FILE, OURS, COMPILED, PLAIN_BCC, BPFTRACE):
        print(f"  {tool:36}{median[tool]:>16.2f} s{memory[tool] / 2**20:>11.1f} MiB")
    print()
    holds = budget("attached no later than plain BCC", median[OURS] <= median[PLAIN_BCC])
    holds &= budget("attached before bpftrace", median[OURS] < median[BPFTRACE])
    return holds & budget(
        # Nothing is kept from one start of it to the next: each is the first.
        "the one file attached before bpftrace, the first time as any other",
        median[ONE_FILE] < median[BPFTRACE],
    )


class Brought(NamedTuple):
    """What a guest that has nothing is given: the one file; bpftrace with all that it loads, as an
    archive, from a guest of the same suite."""

    one_file: bytes
    bpftrace: bytes = b""


def brought_from(kernel: str) -> Brought:
    """Both, made in a guest with that kernel's own userspace: the file's modules are compiled for
    the Python there."""
    config = GuestConfig(kernel)
    with (
        Guest(image_of(config, progress), config, progress) as guest,
        TemporaryDirectory() as directory,
    ):
        guest.install_balloontrace()
        guest.run(["balloontrace", "bundle", "-o", PYZ])
        files = "$(ldd /usr/bin/bpftrace | grep -o '/[^ ]*') $(readlink -f /usr/bin/bpftrace)"
        guest.run(f"tar -chzPf /root/bpftrace.tar.gz /usr/bin/bpftrace {files}")
        here = Path(directory, "file")
        found = []
        for path in (PYZ, "/root/bpftrace.tar.gz"):
            guest.fetch(path, here)
            found.append(here.read_bytes())
    return Brought(*found)


def compare_one_file(config: GuestConfig, brought: Brought) -> bool:
    """Exec to attached of the one file beside bpftrace, and nothing else: many rounds."""
    progress("exec to attached: booting a guest")
    with Guest(image_of(config, progress), config, progress) as guest:
        if brought.bpftrace:
            guest.push(brought.bpftrace, "tar -xzP --skip-old-files")
        python = guest.run(["python3", "--version"]).stdout.strip()
        where = f"userspace {config.userspace or 'of its own'}, {python}, {choose_accel()}"
        print(f"Linux {config.kernel}, {where}, {ONE_FILE_ROUNDS} alternating rounds\n")
        times = attach_times(guest, brought.one_file, ONE_FILE_ROUNDS, (ONE_FILE, BPFTRACE))
    taken = {tool: [run["seconds"] for run in runs] for tool, runs in times.items()}
    print(f"  {'':12}{'median':>10}{'fastest':>10}")
    for tool, seconds in taken.items():
        print(f"  {tool:12}{statistics.median(seconds):>8.2f} s{min(seconds):>8.2f} s")
    print()
    return budget(
        "the one file attached before bpftrace, the first time as any other",
        statistics.median(taken[ONE_FILE]) < statistics.median(taken[BPFTRACE]),
    )


def compare_one_file_in_guests() -> bool:
    """That in the guest that has bpftrace, and in the bare image, which is given it."""
    bare = GuestConfig("6.12", userspace="bare")
    holds = compare_one_file(GuestConfig(), Brought(bundle.made()))
    return holds & compare_one_file(bare, brought_from(bare.kernel))


def record_scenarios() -> bool:
    """Both scenarios: the recorder's peak memory, and what was lost."""
    holds = True
    with TemporaryDirectory() as out:
        for name, driver in (
            ("idle", "stock"),
            ("page-cache", "stock"),
            ("page-cache", "shrinker"),
        ):
            scenario = find_scenario(name)
            config = GuestConfig(driver=driver, memory_bytes=scenario.memory_bytes)
            run = run_scenario(scenario, config, Path(out), progress)
            trailer = read_recording(str(run.recording)).trailer
            assert trailer is not None
            peak, lost = trailer["recorder"]["rss_peak_bytes"], trailer["lost_events"]
            what = (
                f"{name}, {driver}: recorder's peak RSS {peak / 2**20:.1f} MiB of 16, "
                f"{trailer['events']:,} events, {lost} lost, "
                f"{trailer['recorder']['cpu_s']:.2f} s of CPU"
            )
            holds &= budget(what, peak <= RSS_BUDGET and lost == 0)
    return holds


def no_headers() -> bool:
    """The image has none."""
    with Guest(ensure_image(find_kernel("6.1"), progress), GuestConfig(), progress) as guest:
        found = guest.run("ls -d /lib/modules/*/build /usr/src/linux-headers-* 2>/dev/null | wc -l")
    return budget("no kernel headers in the guest", found.stdout.strip() == "0")


def main() -> int:
    """Print all budgets; 1 if one is missed. argv: --one-file, for that beside bpftrace alone."""
    if "--one-file" in sys.argv[1:]:
        return 0 if compare_one_file_in_guests() else 1
    results = [compare_attaching(), no_headers(), record_scenarios()]
    return 0 if all(results) else 1


if __name__ == "__main__":
    run("bench-footprint", main)
