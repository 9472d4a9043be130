# SPDX-License-Identifier: Apache-2.0
"""A writer to whom the kernel gives no more memory, as in a guest that may commit none
(vm.overcommit_memory=2) once its balloon has taken what CommitLimit counts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from balloontrace.recording.reader import read_recording

SCRIPT = """
import os, resource, sys
from balloontrace.recording.writer import ITEM_BYTES, Writer

writer = Writer(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT))
names = {"record": [["x", "<u8"]] * 7, "ring_header_bytes": 8}
writer.header(names)
span = os.urandom(int(sys.argv[2]) * ITEM_BYTES)
text = "x" * 3000
with open("/proc/self/status") as status:
    fields = dict(line.split(":", 1) for line in status)
resource.setrlimit(resource.RLIMIT_DATA, (int(fields["VmData"].split()[0]) * 1024,) * 2)
grabbed = []
for size in (1 << 20, 1 << 16):
    try:
        while True:
            grabbed.append(bytes(size))
    except MemoryError:
        pass
grabbed.pop()  # as is left in the heap of who has written for a while; zlib wants four times that
for number in range(3):
    writer.events(span, sample_follows=True)
    writer.sample({"t_ns": number, "vmstat": {"balloon_inflate": number}})
    writer.sample({"t_ns": number, "text": text})
writer.trailer({"reason": "duration"})
"""


@pytest.mark.parametrize("events", [8, 100, 2048])
def test_nothing_is_lost(tmp_path: Path, events: int) -> None:
    path = tmp_path / "r.btrace"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), str(events)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    recording = read_recording(str(path))
    assert (recording.damage, recording.missing_blocks) == ([], 0)
    assert sum(len(span) for span in recording.events) == 3 * events * 64
    assert len(recording.samples) == 6
    assert recording.complete
