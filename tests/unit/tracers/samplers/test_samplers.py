# SPDX-License-Identifier: Apache-2.0
"""What samplers make of /proc as it really is: files longer than a page, and sources that fail."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from balloontrace.tracers.samplers import OF_A_TRACE, Samplers, vmstat
from balloontrace.tracers.samplers.proc import NamedNumbers, ProcFile
from balloontrace.tracers.samplers.psi import Psi

PAGE = 4096
"""What a read of a seq_file gives at most."""


def test_a_file_of_proc_is_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weeks = "".join(f"pgscan_{n} {10**15 + n}\n" for n in range(400)) + "balloon_inflate 7\n"
    path = tmp_path / "vmstat"
    path.write_text(weeks)
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, min(size, PAGE), at))
    lines = ProcFile(str(path)).text().splitlines()
    assert lines[-1] == b"balloon_inflate 7"
    assert len(lines) == 401


def test_numbers_are_found_by_name_and_again_when_a_line_comes(tmp_path: Path) -> None:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:  100 kB\nCached:    7 kB\nMemFree:    20 kB\n")
    file = NamedNumbers(str(path), (b"MemFree:", b"MemTotal:"), b":", b" kB")
    assert file.numbers(file.text()) == {"MemTotal": 100, "MemFree": 20}
    path.write_text("MemTotal:  100 kB\nBalloon:   5 kB\nCached:    7 kB\nMemFree:    21 kB\n")
    assert file.numbers(file.text()) == {"MemTotal": 100, "MemFree": 21}


def test_pressure_is_what_the_kernel_says() -> None:
    try:
        psi = Psi()
    except OSError:
        pytest.skip("this machine's kernel has no PSI")
    before, said, after = psi.read(), _pressure(), psi.read()
    for resource, shares in said.items():
        for share, total in shares.items():
            assert before[resource][share] <= total <= after[resource][share]


def _pressure() -> dict[str, dict[str, int]]:
    found = {}
    for resource in ("memory", "cpu", "io"):
        lines = Path(f"/proc/pressure/{resource}").read_text().split("\n")[:-1]
        found[resource] = {f"{line.split()[0]}_us": int(line.split("=")[-1]) for line in lines}
    return found


def test_reading_the_balloons_counters_leaves_no_file_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        vmstat.balloon_counters()
    # Others' may be closed meanwhile, by the collector of garbage.
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_sampler_that_fails_costs_its_reading_and_is_told_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(self: Psi) -> list[bytes]:
        raise OSError(95, "Operation not supported")

    samplers = Samplers(OF_A_TRACE)
    monkeypatch.setattr(Psi, "text", refused)
    first, second = samplers.read(), samplers.read()
    if "psi" not in samplers.absent:
        assert first["failed"] == {"psi": "[Errno 95] Operation not supported"}
    assert "failed" not in second
    assert "psi" not in second
    assert second["vmstat"]["nr_free_pages"] > 0
