# SPDX-License-Identifier: Apache-2.0
"""Programs that take memory, run here in small."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from balloontrace.lab import hog

SIZE = 8 << 20

COUNTING = """
import json, mmap
done = dict(maps=0, written=0, read=0, closed=0)
class Counting(mmap.mmap):
    def __new__(cls, *args):
        done["maps"] += 1
        return super().__new__(cls, *args)
    def write(self, data):
        done["written"] += len(data)
        return super().write(data)
    def __getitem__(self, at):
        done["read"] += 1
        return super().__getitem__(at)
    def close(self):
        done["closed"] += 1
        super().close()
mmap.mmap = Counting
"""


def run(program: str) -> dict[str, int]:
    """What it did to its memory: bytes written, pages read, mappings made and closed."""
    text = COUNTING + program + "\nprint(json.dumps(done))"
    done = subprocess.run(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, check=True
    )
    counts: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return counts


@pytest.mark.parametrize("times", [1, 3])
def test_memory_is_taken_so_many_times(times: int) -> None:
    done = run(hog.take(SIZE, times=times, lock=False))
    assert done["maps"] == times
    assert done["written"] == times * SIZE
    # Memory that is not freed has no second fault.
    assert done["closed"] == (times if times > 1 else 0)


def test_what_was_taken_is_used_for_so_long() -> None:
    assert run(hog.take(SIZE, lock=False))["read"] == 0
    program = hog.take(SIZE, use_s=1, lock=False, limit_s=30)
    pages, rest = divmod(run(program)["read"], SIZE >> 12)
    assert pages >= 1
    assert rest == 0
