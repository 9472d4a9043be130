# SPDX-License-Identifier: Apache-2.0
"""Runs one scenario in one guest and brings the evidence back."""

from __future__ import annotations

import contextlib
import math
import re
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from balloontrace.errors import UserError
from balloontrace.events import BALLOON_PAGE_BYTES
from balloontrace.host.clocks import Clocks
from balloontrace.host.qemu import Qemu
from balloontrace.host.sampler import Sampler
from balloontrace.lab import hog, pauses
from balloontrace.lab.guest import Guest, image_of
from balloontrace.lab.host import require_memory
from balloontrace.lab.hostlog import SAMPLE_INTERVAL_S, BalloonWatch, ClockInGuest
from balloontrace.lab.qemu import GuestConfig, choose_accel
from balloontrace.lab.record import start_recorder
from balloontrace.lab.remote import RemoteGuest, RemoteProcess
from balloontrace.lab.repeat import Repeat
from balloontrace.lab.scenario import Scenario, Step
from balloontrace.lab.sizes import format_size
from balloontrace.lab.slow_host import slow_discards
from balloontrace.lab.vagrant import VagrantGuest
from balloontrace.lab.workload import WORKLOAD_FILES, Workload
from balloontrace.recording.host_lines import END, SET, TARGET, HostLog

Progress = Callable[[str], None]

PROVIDERS = ("qemu", "vagrant")
"""Who runs guests: plain QEMU, disposable; or vagrant/Vagrantfile."""

_RECORDING = "/root/rec.btrace"
_SWAP_FILE = "/root/swap"
_RECORD_START_S = 90.0
_RECORD_STOP_S = 120.0
_SETTLE_S = 5.0
_REST_S = 5.0
_REST_POLL_S = 0.5
_FILES = ("btrace", "host.jsonl", "console.log", "record.log")


@dataclass(frozen=True)
class StepResult:
    """How one balloon step went. seconds counts from the target to its outcome.

    outcome: ``reached``; ``settled``, at rest short of the target after the workload was stopped
    (the shrinker driver drops a target it has once filled, even if reclaim empties the balloon
    again meanwhile); ``missed``, still on its way when the time was over.
    under_workload: the target was reached while the workload ran.
    """

    target_pages: int
    outcome: str
    under_workload: bool
    seconds: float


@dataclass(frozen=True)
class RunResult:
    """What a run left behind; boot_s is the time from QEMU's start to the first command."""

    recording: Path
    host_view: Path
    boot_s: float
    steps: tuple[StepResult, ...]


def run_scenario(
    scenario: Scenario,
    config: GuestConfig,
    out: Path,
    progress: Progress,
    provider: str = PROVIDERS[0],
) -> RunResult:
    """Boot a guest, record it while the scenario runs, and fetch the recording into ``out``.

    provider: who runs the guest, one of PROVIDERS. The files are named ``<scenario>-<driver>.*``.
    Raises UserError when anything fails, GuestDied and GuestHung among them; the console log and
    the host's view stay.
    """
    out.mkdir(parents=True, exist_ok=True)
    stem = f"{scenario.name}-{config.driver}"
    path = {kind: out / f"{stem}.{kind}" for kind in _FILES}
    path["btrace"].unlink(missing_ok=True)  # never an old recording beside a new console log

    def say(text: str) -> None:
        progress(f"{stem}: {text}")

    made = _make_guest(provider, config, path["console.log"], progress, say)
    with HostLog(path["host.jsonl"].open("w", encoding="ascii")) as log, made as guest:
        sampler = Sampler(Qemu(guest.monitor, guest.host_pid(), reads_target=False), log)
        lab = _metadata(scenario, provider, guest)
        sampler.begin(SAMPLE_INTERVAL_S, clocks=True, sets_targets=True, lab=lab)
        with Clocks(ClockInGuest(guest), log):
            guest.install_balloontrace()
            say(f"ready after {guest.boot_s:.0f} s, starting the recorder")
            recorder = _start_recorder(guest, path["record.log"], scenario.means)
            steps = _Run(scenario, guest, log, sampler, say).play()
            _stop_recorder(recorder, path["record.log"])
        log.write(END, reason="the scenario is over")
        guest.fetch(_RECORDING, path["btrace"])
        _clean(guest, scenario)
    return RunResult(path["btrace"], path["host.jsonl"], guest.boot_s, tuple(steps))


def _make_guest(
    provider: str, config: GuestConfig, console_log: Path, progress: Progress, say: Progress
) -> RemoteGuest:
    """The guest, not yet up. Raises UserError before anything is written where it cannot be."""
    require_memory(config.memory_bytes)
    what = f"kernel {config.kernel}, {format_size(config.memory_bytes)}, {config.cpus} CPUs"
    if provider == "vagrant":
        say(f"a Vagrant machine, {what}")
        return VagrantGuest(config, console_log, say)
    image = image_of(config, progress)
    say(f"booting a guest, {what}, {choose_accel()}")
    return Guest(image, config, say, console_log)


class _Run:
    """The schedule of one scenario in a booted guest."""

    def __init__(
        self,
        scenario: Scenario,
        guest: RemoteGuest,
        log: HostLog,
        sampler: Sampler,
        progress: Progress,
    ) -> None:
        self._scenario = scenario
        self._guest = guest
        self._log, self._sampler = log, sampler
        self._progress = progress
        self._workload = Workload(scenario, guest, log, progress)

    def play(self) -> list[StepResult]:
        if self._guest.config.disk_bytes:
            self._guest.run("resize2fs /dev/vda")
        if self._scenario.swap_bytes:
            self._add_swap(self._scenario.swap_bytes)
        self._workload.prepare()
        with BalloonWatch(self._sampler) as watch:
            try:
                with self._slow_host(), self._polling():
                    results = [
                        self._step(step, watch)
                        for _ in range(self._scenario.repeat)
                        for step in self._scenario.steps
                    ]
            except UserError as error:
                raise self._guest.lost() or error from error
        self._workload.stop()
        return results

    def _step(self, step: Step, watch: BalloonWatch) -> StepResult:
        if step.stop_workload:
            self._workload.stop()
        if step.run:
            self._progress(step.run)
            self._guest.run(step.run)
            self._log.write("run", command=step.run)
        self._prepare(step)
        balloon = self._guest.balloon
        pages = int(step.target * balloon.memory_pages)
        started = time.monotonic()
        self._set_target(pages)
        self._progress(f"balloon target {format_size(pages * BALLOON_PAGE_BYTES)}")
        if step.start_hog:
            self._workload.start_hog()

        limit_s, give_up_s = step.limit_s, step.give_up_s or math.inf
        with self._resending(step, pages):
            if step.until == "at-rest":
                self._await_rest(limit_s)
            if step.until == "hog-has-taken":
                self._workload.await_hog_has_taken(limit_s)
            if step.until == "hog-ends":
                self._workload.await_hog(limit_s)
                limit_s = 0.0
            outcome = watch.wait_for(pages, limit_s, give_up_s=give_up_s)
        under_workload = outcome == "reached" and self._workload.is_reading
        if outcome != "reached" and step.at_limit == "stop-workload":
            self._progress(f"not reached in {step.limit_s:.0f} s, stopping the workload")
            self._workload.stop()
            outcome = watch.wait_for(pages, step.grace_s, _SETTLE_S)
        seconds = time.monotonic() - started
        self._log.write(outcome, bytes=balloon.actual_bytes())
        self._progress(f"{outcome} after {seconds:.1f} s")
        return StepResult(pages, outcome, under_workload, seconds)

    def _await_rest(self, limit_s: float) -> None:
        """Wait until no page of the balloon was moved for _REST_S, so long at most: compaction goes
        on when there is no need for it any more."""
        began = still_since = time.monotonic()
        before: list[int] = []
        while (now := time.monotonic()) < min(began + limit_s, still_since + _REST_S):
            vmstat = self._guest.vmstat()
            moved = [count for name, count in vmstat.items() if name.startswith("balloon_")]
            if moved != before:
                before, still_since = moved, now
            time.sleep(_REST_POLL_S)

    def _prepare(self, step: Step) -> None:
        """What comes before the target; touched memory is what the host then has to take."""
        if step.touch is not None:
            size = int(step.touch * self._guest.config.memory_bytes)
            self._progress(f"touching {format_size(size)}")
            self._guest.run(["python3", "-c", hog.take(size)])
            self._log.write("workload", state="touched", bytes=size)
        if step.start_workload:
            self._workload.start_readers()
        if step.hint_s:
            self._progress(f"the host takes hints for {step.hint_s:.0f} s")
            self._log.write("hints", seconds=step.hint_s)
            with self._guest.balloon.hinting():
                time.sleep(step.hint_s)
        self._pause("suspended", pauses.suspend, step.suspend_s)
        self._pause("stopped", pauses.stop, step.stop_s)
        time.sleep(step.rest_s)

    def _pause(
        self, state: str, pause: Callable[[RemoteGuest, float], None], seconds: float
    ) -> None:
        """Let the guest not run for so long, if at all."""
        if seconds:
            self._progress(f"the guest is {state} for {seconds:.0f} s")
            self._log.write("pause", state=state, seconds=seconds)
            pause(self._guest, seconds)

    def _set_target(self, pages: int) -> None:
        self._log.write(TARGET, bytes=pages * BALLOON_PAGE_BYTES, by=SET)
        self._guest.balloon.set_target_pages(pages)

    def _resending(self, step: Step, pages: int) -> contextlib.AbstractContextManager[object]:
        """Send the target again and again, if the step says so."""
        if not step.resend_s:
            return contextlib.nullcontext()
        return Repeat(lambda: self._set_target(pages), step.resend_s)

    def _add_swap(self, size: int) -> None:
        self._guest.run(
            f"fallocate -l {size} {_SWAP_FILE} && chmod 600 {_SWAP_FILE} && "
            f"mkswap -q {_SWAP_FILE} && swapon {_SWAP_FILE}"
        )
        self._log.write("swap", bytes=size)

    def _polling(self) -> contextlib.AbstractContextManager[object]:
        """Let the host ask for the balloon's statistics, if the scenario says so."""
        interval_s = self._scenario.stats_interval_s
        if not interval_s:
            return contextlib.nullcontext()
        self._log.write("host", stats_interval_s=interval_s)
        return self._guest.balloon.polling(interval_s)

    def _slow_host(self) -> contextlib.AbstractContextManager[object]:
        """Make the host slow to take pages, if the scenario says so."""
        delay_us = self._scenario.discard_delay_us
        if not delay_us:
            return contextlib.nullcontext()
        self._log.write("host", discard_delay_us=delay_us)
        return slow_discards(self._guest.host_pid(), delay_us)


def _clean(guest: RemoteGuest, scenario: Scenario) -> None:
    """Remove what the run has made: the guest may live on."""
    if scenario.swap_bytes:
        guest.run(["swapoff", _SWAP_FILE])
    guest.run(["rm", "-f", _RECORDING, _SWAP_FILE, *WORKLOAD_FILES])


def _metadata(scenario: Scenario, provider: str, guest: RemoteGuest) -> dict[str, object]:
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"^model name\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    version = guest.monitor.execute("query-version")["qemu"]
    return {
        "scenario": scenario.name,
        "provider": provider,
        "guest": asdict(guest.config),
        "kernel_release": guest.run(["uname", "-r"]).stdout.strip(),
        "accel": "kvm" if guest.monitor.execute("query-kvm")["enabled"] else "tcg",
        "qemu": ".".join(str(version[part]) for part in ("major", "minor", "micro")),
        "host_cpu": model[1] if model else "unknown",
    }


def _start_recorder(guest: RemoteGuest, log: Path, means: str) -> RemoteProcess:
    """Start `balloontrace record` in the guest and wait until it is attached."""
    arguments = ["--means", means] if means else []
    with log.open("wb") as stderr:
        recorder, attached = start_recorder(
            guest, _RECORDING, *arguments, stderr=stderr, timeout_s=_RECORD_START_S
        )
    if not attached:
        recorder.communicate()
        raise _recorder_error("did not start", log)
    return recorder


def _stop_recorder(recorder: RemoteProcess, log: Path) -> None:
    if recorder.poll() is not None:
        raise _recorder_error("ended before the scenario did", log)
    recorder.send_signal(signal.SIGINT)
    status, _, _ = recorder.communicate(_RECORD_STOP_S)
    if status != 0:
        raise _recorder_error(f"ended with status {status}", log)


def _recorder_error(what: str, log: Path) -> UserError:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    said = f"it said: {lines[-1]}" if lines else "it said nothing"
    return UserError(f"the recorder in the guest {what}; {said}", f"see {log}")
