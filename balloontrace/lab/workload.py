# SPDX-License-Identifier: Apache-2.0
"""What a scenario runs in its guest beside the balloon: tasks that read a file, and the hog."""

from __future__ import annotations

import select
import shlex
import time

from balloontrace.events import BALLOON_PAGE_BYTES
from balloontrace.lab import hog
from balloontrace.lab.image import Progress
from balloontrace.lab.remote import RemoteGuest, RemoteProcess
from balloontrace.lab.scenario import Hog, Readers, Scenario
from balloontrace.lab.sizes import format_size
from balloontrace.recording.host_lines import HostLog

_FILE = "/root/workload"
_HOG_PYTHON = "/root/hog-python"
"""A copy: the recorder keeps the guest's own Python in memory, which spares others that run it."""

WORKLOAD_FILES = (_FILE, _HOG_PYTHON)
"""What is left in the guest."""

_HOG_CGROUP = "/sys/fs/cgroup/balloontrace-hog"
_FILL_S = 1800.0
_POLL_S = 0.1

_TOUCH_MAPPED = f"""
import mmap, random, time
with open({_FILE!r}, "rb") as file:
    pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    while file.read(1 << 20):  # as much of it as there is room for, sooner than page by page
        pass
pages.madvise(mmap.MADV_RANDOM)  # one page a fault
while True:
    for _ in range(1000):
        pages[int(random.random() * len(pages))]
    time.sleep(0.05)  # a rest beside pages that are there, nothing beside pages that are not
"""


class Workload:
    """The tasks of one scenario in a booted guest. Every method raises UserError."""

    def __init__(
        self, scenario: Scenario, guest: RemoteGuest, log: HostLog, progress: Progress
    ) -> None:
        self._scenario = scenario
        self._guest = guest
        self._log = log
        self._progress = progress
        self._readers: RemoteProcess | None = None
        self._hog: RemoteProcess | None = None

    @property
    def is_reading(self) -> bool:
        """Whether the readers run."""
        return self._readers is not None

    def prepare(self) -> None:
        """Make the readers' file; start them, unless a step does, with the file in memory."""
        readers = self._scenario.readers
        if readers is None:
            return
        size = self._file_bytes(readers)
        self._progress(f"making a file of {format_size(size)}")
        make = f"truncate -s {size} {_FILE}"
        if readers.random:
            make = f"head -c {size} /dev/urandom > {_FILE} && sync"
        later = any(step.start_workload for step in self._scenario.steps)
        then = "echo 1 > /proc/sys/vm/drop_caches" if later else f"cat {_FILE} > /dev/null"
        self._guest.run(f"{make} && {then}", timeout_s=_FILL_S)
        if not later:
            self.start_readers()

    def start_readers(self) -> None:
        """Start the tasks that read the file over and over."""
        readers = self._scenario.readers
        if readers is None or self.is_reading:
            return
        self._progress(f"{readers.tasks} tasks read it" if readers.tasks > 1 else "a task reads it")
        self._readers = self._guest.popen(["sh", "-c", _reader_command(readers)])
        size = self._file_bytes(readers)
        self._log.write("workload", state="start", bytes=size, readers=str(readers))

    def _file_bytes(self, readers: Readers) -> int:
        return int(readers.file * self._guest.config.memory_bytes)

    def start_hog(self) -> None:
        """Start the task that takes memory; its own kernel ends it after its limit."""
        plan = self._scenario.hog
        if plan is None:
            return
        program = _hog_program(plan, self._guest.config.memory_bytes)
        python = "python3"
        if not plan.lock:
            python = _HOG_PYTHON
            self._guest.run(f"cp $(readlink -f $(which python3)) {python}; sync")
        command = [python, "-c", program]
        if plan.memory_max is not None:
            limit = int(plan.memory_max * self._guest.config.memory_bytes)
            self._guest.run(f"mkdir -p {_HOG_CGROUP}; echo {limit} > {_HOG_CGROUP}/memory.max")
            join = f"echo $$ > {_HOG_CGROUP}/cgroup.procs; exec {shlex.join(command)}"
            command = ["sh", "-c", join]
        self._hog = self._guest.popen(command)
        self._progress("a task takes memory")
        self._log.write("workload", state="start", hog=str(plan))

    def await_hog_has_taken(self, limit_s: float) -> None:
        """Wait until the hog has taken its memory, or has ended, so long at most."""
        if self._hog is not None:
            ready, _, _ = select.select([self._hog.stdout], [], [], limit_s)
            state = "taken" if ready and self._hog.stdout.readline() else "not taken"
            self._log.write("workload", state=state)

    def await_hog(self, limit_s: float) -> None:
        """Wait until the hog has ended, or end it."""
        if self._hog is None:
            return
        deadline = time.monotonic() + limit_s
        while self._hog.poll() is None and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        if self._hog.poll() is None:
            self._hog.kill_group()
        status, _, said = self._hog.communicate()
        self._hog = None
        self._progress(f"the task that took memory ended with status {status}")
        self._log.write("workload", state="ended", status=status, said=said)

    def stop(self) -> None:
        """End the hog and the readers."""
        self.await_hog(0.0)
        if self._readers is None:
            return
        self._readers.kill_group()
        self._readers = None
        self._log.write("workload", state="stop")


def _reader_command(readers: Readers) -> str:
    """A shell command that runs the readers, one process group in all."""
    one = f"while :; do cat {_FILE} > /dev/null; done"
    if readers.mapped:
        one = shlex.join(["python3", "-c", _TOUCH_MAPPED])
    if readers.tasks == 1:
        return one
    return " ".join([f"({one}) &"] * readers.tasks) + " wait"


def _hog_program(plan: Hog, memory_bytes: int) -> str:
    """The hog's program for a guest of that size."""
    if plan.take is not None:
        size = int(plan.take * memory_bytes)
        return hog.take(
            size, use_s=plan.use_s, times=plan.times, pause_s=plan.pause_s,
            lock=plan.lock, limit_s=plan.limit_s,
        )  # fmt: skip
    pages = int((plan.until_given_back or 0) * memory_bytes) // BALLOON_PAGE_BYTES
    return hog.until_given_back(
        pages, lock=plan.lock, limit_s=plan.limit_s, mib_per_s=plan.mib_per_s
    )
