# SPDX-License-Identifier: Apache-2.0
"""`make fuzz`: recordings that somebody made to break a reader, found by atheris (libFuzzer).

Real recordings are changed and reported: bytes of the file, and bytes of a block's payload whose
frame is then made right again, which gets past every checksum. Anything but a report or a UserError
is a crash. argv: libFuzzer's options, such as -runs=10000 or -max_total_time=600.
"""

from __future__ import annotations

import os
import sys
import tempfile
from functools import partial
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["balloontrace"]):
    from balloontrace.analysis.json import report_json
    from balloontrace.analysis.text.report import report_text
    from balloontrace.analysis.timeline.picture import picture
    from balloontrace.analysis.timeline.terminal import timeline
    from balloontrace.errors import UserError
    from balloontrace.recording.reader import Block, read_blocks
    from balloontrace.recording.writer import Writer

_DATA = Path(__file__).parents[1] / "tests" / "data"
_NAMES = ("6.1-stock-oom", "6.1-stock-idle", "6.1-driver-reloaded", "6.1-shrinker-reclaim")
FILES = [(_DATA / f"{name}.btrace").read_bytes() for name in _NAMES]
BLOCKS = [[b for b in read_blocks(file) if isinstance(b, Block)] for file in FILES]
_FUZZED = Path(tempfile.mkdtemp()) / "fuzzed.btrace"


def spliced(whole: bytes, source: atheris.FuzzedDataProvider) -> bytes:
    """`whole` with some of it replaced."""
    at = source.ConsumeIntInRange(0, len(whole))
    gone = source.ConsumeIntInRange(0, 16)
    new: bytes = source.ConsumeBytes(source.ConsumeIntInRange(0, 16))
    return whole[:at] + new + whole[at + gone :]


def made(data: bytes) -> None:
    """Write the recording that `data` stands for."""
    source = atheris.FuzzedDataProvider(data)
    number = source.ConsumeIntInRange(0, len(FILES) - 1)
    if source.ConsumeBool():
        _FUZZED.write_bytes(spliced(FILES[number], source))
        return
    blocks = [(block.kind, block.payload) for block in BLOCKS[number]]
    for _ in range(source.ConsumeIntInRange(1, 3)):
        place = source.ConsumeIntInRange(0, len(blocks) - 1)
        kind, payload = blocks[place]
        blocks[place] = (kind, spliced(payload, source))
    fd = os.open(_FUZZED, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    writer = Writer(fd)
    for kind, payload in blocks:
        writer._block(kind, payload)
    os.close(fd)


def report_it(data: bytes) -> None:
    """What the fuzzer calls: nothing may come of it but a report, or a UserError."""
    made(data)
    try:
        pictured = picture(str(_FUZZED))
    except UserError:
        return
    report_json(pictured.report)
    text = report_text(
        pictured.report, verbose=True, timeline=partial(timeline, course=pictured.timeline)
    )
    if "\x1b" in text:
        raise RuntimeError("an escape sequence came through")


if __name__ == "__main__":
    atheris.Setup(sys.argv, report_it)
    atheris.Fuzz()
