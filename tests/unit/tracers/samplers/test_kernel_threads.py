# SPDX-License-Identifier: Apache-2.0
"""CPU time of kernel threads, on this machine's own and by name."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from balloontrace.tracers.samplers import kernel_threads
from balloontrace.tracers.samplers.kernel_threads import KernelThreads
from balloontrace.tracers.samplers.proc import ProcFile


@pytest.mark.parametrize(
    ("comm", "key"),
    [
        ("kswapd0", "kswapd_ns"),
        ("kcompactd1", "kcompactd_ns"),
        ("kworker/0:1-events_freezable", "kworker_ns"),
        ("kworker/u8:3+events_freezable", "kworker_ns"),
        ("kworker/0:1-events_freezable_power_efficient", ""),
        ("kworker/0:1-events", ""),
        ("kworker/0:1", ""),
        ("ksoftirqd/0", ""),
        ("", ""),
    ],
)
def test_threads_are_told_by_their_names(comm: str, key: str) -> None:
    assert kernel_threads._key(comm) == key


def test_threads_are_found_with_and_without_a_list_of_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    listed = set(kernel_threads._of_the_kernel())
    monkeypatch.setattr(kernel_threads, "_CHILDREN_OF_KTHREADD", str(tmp_path / "none"))
    searched = set(kernel_threads._of_the_kernel())
    # kworkers come and go.
    assert len(listed & searched) > len(listed | searched) / 2


def test_a_thread_that_has_ended_is_no_failure() -> None:
    threads = KernelThreads()
    gone = next(iter(threads._key))
    threads._files[gone].close()
    threads._files[gone] = ProcFile("/proc/self/mem")  # which cannot be read at 0
    first = threads.read()
    assert first.keys() == {"kswapd_ns", "kcompactd_ns", "kworker_ns"}
    assert gone not in threads._key
    second = threads.read()
    assert all(second[key] >= first[key] for key in first)


def test_a_thread_that_is_counted_again_is_counted_from_then_on() -> None:
    threads = KernelThreads()
    tid, key = next(iter(threads._key.items()))
    before = threads.read()[key]
    threads._forget(tid)
    threads._last_ns[tid] = 0
    threads._look()
    assert threads._key[tid] == key
    after, ran_ns = threads.read()[key], int(Path(f"/proc/{tid}/schedstat").read_text().split()[0])
    assert after - before < max(ran_ns, 1)


def test_readings_that_are_understood_later_are_the_same() -> None:
    threads = KernelThreads()
    texts = [threads.text() for _ in range(3)]
    sums = [threads.numbers(text) for text in texts]
    for place, (one, other) in enumerate(itertools.pairwise(texts)):
        grown = [
            int(now.split()[0]) - int(then.split()[0])
            for (_, _, then), (_, _, now) in zip(one, other, strict=True)
        ]
        told = sum(sums[place + 1].values()) - sum(sums[place].values())
        assert told == sum(grown)
