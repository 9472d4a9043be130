# SPDX-License-Identifier: Apache-2.0
"""Programs that take memory, run here in small."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from balloontrace.lab import hog

SIZE = 8 << 20


def faults_of(program: str) -> int:
    """Run it; returns its minor page faults above those of a Python that takes nothing."""

    def run(text: str) -> int:
        report = "\nimport resource\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)"
        done = subprocess.run(
            [sys.executable, "-c", text + report], stdout=subprocess.PIPE, text=True, check=True
        )
        return int(done.stdout.split()[-1])

    return run(program) - run("import mmap, signal, time")


@pytest.mark.parametrize("times", [1, 3])
def test_memory_is_taken_so_many_times(times: int) -> None:
    # Memory that is not freed has no second fault; one fault may bring a page of 2 MiB.
    program = hog.take(SIZE, times=times, lock=False)
    assert faults_of(program) >= times * SIZE // (2 << 20)
    assert program.count("hog.close()") == (times > 1)


def test_what_was_taken_is_used_for_so_long() -> None:
    def cpu_s(use_s: float) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        program = hog.take(SIZE, use_s=use_s, lock=False, limit_s=30)
        subprocess.run([sys.executable, "-c", program], check=True)
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before

    assert cpu_s(0.6) > cpu_s(0.0)
