# SPDX-License-Identifier: Apache-2.0
"""Worker processes on one machine, each limited in memory and time.

A worker is a program of its own, and not forked: one that dies takes nobody along, and it is known
which recording it was reading. Nothing needs to be installed for it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

from balloontrace.errors import UserError
from balloontrace.escape import visible
from balloontrace.fleet.batches import Batch
from balloontrace.fleet.dataset import Dataset
from balloontrace.fleet.work import Limits, Summary, job

_GRACE_S = 15.0
"""Beyond the limit of a recording's time, for what no signal interrupts, and to write the parts."""

_START_S = 120.0
"""To import what a worker needs, on a machine that does much else."""

_STARTS = 3

_LAST_WORDS = 400
"""Bytes of what it wrote that are looked at."""

_WORKER = "balloontrace.fleet.worker"

_ENVIRONMENT = {
    **{f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "ARROW")},
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}
"""One worker is one CPU's; memory is not given back between recordings only to be taken again."""


class Lost(Exception):
    """A worker is gone. kind: of failure, if its batch was one recording; suspect: the number of
    that which it was reading."""

    def __init__(self, kind: str, why: str, suspect: int | None = None) -> None:
        super().__init__(kind, why, suspect)
        self.kind, self.why, self.suspect = kind, why, suspect


class Worker:
    """One process, which is begun when it is needed, and anew when it is gone."""

    def __init__(self, dataset: Dataset, limits: Limits) -> None:
        self._dataset, self._limits = dataset, limits
        self._process: subprocess.Popen[bytes] | None = None
        self._received = b""
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - as long as this
        self._closed = False

    def read(self, batch: Batch) -> Summary:
        """Have a batch read. Raises Lost if the worker dies or hangs, UserError if it cannot write
        or does not begin."""
        process = self._process or self._begun()
        stdin = cast(IO[bytes], process.stdin)
        silence_s = self._limits.seconds + _GRACE_S
        suspect: int | None = None
        try:
            stdin.write(json.dumps(job(batch, self._dataset, self._limits)).encode() + b"\n")
            stdin.flush()
            while "done" not in (answer := self._answer(process, silence_s)):
                if "failed" in answer:
                    self.end()
                    raise UserError(answer["failed"])
                suspect = answer["reading"]
        except TimeoutError:
            self.end()
            raise Lost("time", f"nothing was heard of it for {silence_s:g} s", suspect) from None
        except (EOFError, BrokenPipeError):
            raise Lost("killed", self._how_it_ended(process), suspect) from None
        summary = Summary(**answer["done"])
        if summary.spent:
            self.end()
        return summary

    def kill(self) -> None:
        """Have the process gone, and none come after it; from another thread than reads."""
        self._closed = True
        if process := self._process:
            process.kill()
            process.wait()  # nobody else may be there to do so

    def end(self) -> None:
        """Have the process gone."""
        process, self._process, self._received = self._process, None, b""
        if process is None:
            return
        process.kill()
        with suppress(OSError):  # what was not written any more
            process.communicate()

    @property
    def pid(self) -> int | None:
        """Of the process, if there is one."""
        return self._process.pid if self._process else None

    def _begun(self) -> subprocess.Popen[bytes]:
        """A process that is ready. One that does not come up is tried again: it may have been
        killed for want of memory that others had. Raises UserError."""
        for _ in range(_STARTS):
            process = self._process = self._started()
            if self._closed:
                process.kill()
            try:
                self._answer(process, _START_S)
            except (EOFError, TimeoutError):
                self.end()
            else:
                return process
        raise UserError(
            f"a worker does not begin: {self._last_words()}", "has it enough memory (--memory)?"
        )

    def _started(self) -> subprocess.Popen[bytes]:
        package = str(Path(__file__).parents[2])
        path = os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))
        self._said.truncate(0)
        return subprocess.Popen(
            # -P: nothing is imported from the current directory, which may be others' to write to.
            [sys.executable, "-P", "-m", _WORKER, str(self._limits.memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": path},
            start_new_session=True,  # Ctrl-C is for who began it
        )

    def _answer(self, process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any]:
        """The next line that it says. Raises TimeoutError, or EOFError if it is gone."""
        stdout = cast(IO[bytes], process.stdout).fileno()
        poll = select.poll()
        poll.register(stdout, select.POLLIN)
        while b"\n" not in self._received:
            if not poll.poll(seconds * 1000):
                raise TimeoutError
            more = os.read(stdout, 1 << 16)
            if not more:
                raise EOFError
            self._received += more
        line, _, self._received = self._received.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        return said

    def _how_it_ended(self, process: subprocess.Popen[bytes]) -> str:
        status = process.wait()
        self.end()
        if status >= 0:
            return f"the worker ended with status {status}: {self._last_words()}"
        try:
            return f"the worker was killed ({signal.Signals(-status).name})"
        except ValueError:
            return f"the worker was killed (signal {-status})"

    def _last_words(self) -> str:
        """The last line that it wrote on stderr."""
        self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - _LAST_WORDS))
        lines = self._said.read().decode(errors="replace").split("\n")
        return visible(next((line for line in reversed(lines) if line.strip()), "it said nothing"))


class Processes:
    """As many workers as there are threads here, each of which waits for one of them."""

    def __init__(self, number: int, dataset: Dataset, limits: Limits) -> None:
        self._threads = ThreadPoolExecutor(number, "balloontrace-fleet")
        self._mine = threading.local()
        self._workers: list[Worker] = []
        self._dataset, self._limits = dataset, limits
        self.number = number

    def submit(self, batches: list[Batch]) -> list[Future[Summary]]:
        """Have them read some time; a result raises Lost or UserError."""
        return [self._threads.submit(self._read, batch) for batch in batches]

    def close(self) -> None:
        """End all workers; what is not read by now will not be."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.kill()
        self._threads.shutdown(wait=True)
        for worker in self._workers:
            worker.end()

    @property
    def pids(self) -> list[int]:
        """Of the workers that are there."""
        return [worker.pid for worker in self._workers if worker.pid]

    def _read(self, batch: Batch) -> Summary:
        worker = getattr(self._mine, "worker", None)
        if worker is None:
            worker = self._mine.worker = Worker(self._dataset, self._limits)
            self._workers.append(worker)
        return worker.read(batch)
