# SPDX-License-Identifier: Apache-2.0
"""Control groups of tasks, as /proc tells them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from balloontrace.tracers.samplers import cgroups
from balloontrace.tracers.samplers.cgroups import PATH_CHARACTERS, Cgroups
from balloontrace.tracers.samplers.tasks import MAX_TIDS


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("0::/system.slice/ssh.service\n", "/system.slice/ssh.service"),
        ("0::/\n", ""),
        ("", ""),
        ("12:memory:/docker/ab\n1:name=systemd:/init.scope\n0::/\n", "/docker/ab"),
        ("4:cpu,cpuacct:/a\n3:hugetlb,memory:/b\n", "/b"),
        ("0::/../x:y/z\n", "/../x:y/z"),
    ],
)
def test_the_path_is_where_memory_is_accounted(text: str, path: str) -> None:
    assert cgroups._path(text) == path


def test_a_task_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "_path", lambda text: "/x" * PATH_CHARACTERS + text[:0])
    groups, own = Cgroups(), os.getpid()
    told = groups.of([own, 1, (1 << 22) + 1])  # there is no thread id as large
    assert set(told) == {str(own), "1"}
    assert {len(path) for path in told.values()} == {PATH_CHARACTERS}
    assert groups.of([own, 1]) == {}
    groups._told.update(dict.fromkeys(range(-MAX_TIDS, 0)))
    groups.of([])
    assert set(groups.of([own])) == {str(own)}
    assert len(groups._told) == MAX_TIDS


def test_the_path_of_this_task_is_what_proc_says() -> None:
    said = Path("/proc/self/cgroup").read_text()
    told = Cgroups().of([os.getpid()])
    assert all(path in said for path in told.values())
    assert bool(told) == any(not line.endswith(":/") for line in said.splitlines())
