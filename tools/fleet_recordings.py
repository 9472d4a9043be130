# SPDX-License-Identifier: Apache-2.0
"""Makes recordings by the thousand from the real ones of tests/data: python -m
tools.fleet_recordings OUT --number N --seed S [--bytes B].

Only the header differs from the original, in what tells guests apart: kernel, host name, boot id,
and the day. So what the analyses say of one is what they say of its original, and how many there
are of each is known: OUT/known.json says it.

To be as large as is asked, blocks of events are stored without being compressed, as many as it
takes; what is still missing is a block of a type that readers pass over.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import uuid
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from balloontrace.errors import UserError
from balloontrace.recording import layout
from balloontrace.recording.block import Block
from balloontrace.recording.blocks import read_blocks

DATA = Path(__file__).parents[1] / "tests" / "data"

FILLER = 250
"""A type of block that no reader knows."""

DAYS = 7
DAY_NS = 86_400 * 10**9
FIRST_DAY_NS = 20_758 * DAY_NS
"""2026-11-01."""

KERNELS = ("5.10.0-32-cloud-amd64", "6.1.0-56-cloud-amd64", "6.12.118-cloud-amd64")


@dataclass(frozen=True)
class Kind:
    """What some of the recordings are. original: below tests/data; findings: the ids of what is
    found in it; share: of all recordings; cut: its end is missing; readable: False, it is none."""

    name: str
    original: str
    findings: tuple[str, ...]
    share: float
    cut: bool = False
    readable: bool = True


KINDS = (
    Kind("idle", "6.1-stock-idle.btrace", (), 0.6),
    Kind("shrinker", "6.1-shrinker-reclaim.btrace", (), 0.1),
    Kind("out of puff", "6.1-tour.btrace", ("memcg-oom", "out-of-puff"), 0.08),
    Kind("driver gone", "6.1-driver-reloaded.btrace", ("driver-gone",), 0.05),
    Kind("killed", "cases/oom-kill-no-deflate.btrace", ("killed-beside-balloon",), 0.04),
    Kind("thrashing", "cases/thrash-at-rest.btrace", ("held-under-pressure",), 0.03),
    Kind("cut", "6.1-stock-oom.btrace", (), 0.07, cut=True),
    Kind("no recording", "6.1-stock-idle.btrace", (), 0.03, readable=False),
)
"""The shares add up to 1. Only the first has no number of its own: it is what is left."""


@dataclass(frozen=True)
class Made:
    """One recording; the fields that a guest has are those of its header."""

    file: str
    kind: str
    kernel: str
    host_name: str
    boot_id: str
    day: int
    findings: tuple[str, ...]
    readable: bool
    complete: bool


def plan(number: int, seed: int) -> list[Made]:
    """What is to be made, the same for the same seed: of each kind its share, rounded down, in a
    random order."""
    chance = random.Random(seed)
    kinds = [kind for kind in KINDS[1:] for _ in range(int(number * kind.share + 1e-9))]
    kinds += [KINDS[0]] * (number - len(kinds))
    chance.shuffle(kinds)
    return [
        Made(
            file=f"{place // 1000:03}/{place:06}.btrace",
            kind=kind.name,
            kernel=chance.choice(KERNELS),
            host_name=f"guest-{place:06}",
            boot_id=str(uuid.UUID(int=chance.getrandbits(128), version=4)),
            day=chance.randrange(DAYS),
            findings=kind.findings,
            readable=kind.readable,
            complete=kind.readable and not kind.cut,
        )
        for place, kind in enumerate(kinds)
    ]


def content(made: Made, least_bytes: int = 0) -> bytes:
    """The file of one recording. least_bytes: how large it is at least; one that is cut is as large
    before it is."""
    kind = next(kind for kind in KINDS if kind.name == made.kind)
    header, rest, last = _blocks(kind.original, least_bytes)
    begin = layout.MAGIC + _written(header, payload=_header(header, made))
    if not kind.readable:
        return bytes(len(begin)) + rest
    return begin + rest + (b"" if kind.cut else last)


def _header(block: Block, made: Made) -> bytes:
    """The original's with another guest in it, and another day."""
    said = json.loads(block.payload)
    guest = {"kernel": made.kernel, "hostname": made.host_name, "boot_id": made.boot_id}
    clock = said.get("clock") or {"monotonic_ns": said["attached_ns"], "realtime_ns": 0}
    clock["realtime_ns"] = FIRST_DAY_NS + made.day * DAY_NS + clock["realtime_ns"] % DAY_NS // 2
    return json.dumps({**said, "guest": {**said["guest"], **guest}, "clock": clock}).encode()


@cache
def _blocks(original: str, least_bytes: int) -> tuple[Block, bytes, bytes]:
    """The header of an original; what is between it and the trailer, as written, enlarged; and the
    trailer as written."""
    data = (DATA / original).read_bytes()
    found = [block for block in read_blocks(data) if isinstance(block, Block)]
    header, *between, trailer = found
    missing = least_bytes - len(data)
    written = []
    for block in between:
        plain = missing > 0 and block.kind == layout.EVENTS and bool(block.flags & layout.ZLIB)
        if plain:
            one = _written(block, flags=block.flags & ~layout.ZLIB)
        else:
            one = data[block.offset : block.end]
        missing -= len(one) - (block.end - block.offset)
        written.append(one)
    sequence = trailer.sequence
    if missing > layout.FRAME.size:
        noise = random.Random(original).randbytes(missing - layout.FRAME.size)
        written.append(_framed(FILLER, 0, 0, sequence, noise, len(noise)))
        sequence += 1
    return header, b"".join(written), _written(trailer, sequence=sequence)


def _written(
    block: Block,
    payload: bytes | None = None,
    flags: int | None = None,
    sequence: int | None = None,
) -> bytes:
    """A block with another payload, other flags, or another number."""
    raw = block.payload if payload is None else payload
    marks = block.flags if flags is None else flags
    stored = zlib.compress(raw, 1) if marks & layout.ZLIB else raw
    number = block.sequence if sequence is None else sequence
    return _framed(block.kind, marks, block.item_bytes, number, stored, len(raw))


def _framed(kind: int, flags: int, item: int, sequence: int, stored: bytes, raw: int) -> bytes:
    frame = layout.FRAME.pack(layout.SYNC, kind, flags, item, sequence, len(stored), raw, 0)
    begin = frame[: layout.SUMMED]
    return begin + layout.CRC.pack(zlib.crc32(stored, zlib.crc32(begin))) + stored


def make(out: Path, number: int, seed: int, least_bytes: int = 0) -> list[Made]:
    """Write the recordings into the directory `out`, which must not be there, and known.json.
    Raises UserError."""
    recordings = plan(number, seed)
    try:
        out.mkdir(parents=True)
        for made in recordings:
            path = out / made.file
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content(made, least_bytes))
        (out / "known.json").write_text(json.dumps(known(recordings), indent=1))
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}") from None
    return recordings


def known(recordings: Iterable[Made]) -> dict[str, object]:
    """How many there are of what, and each by itself."""
    all_of_them = list(recordings)
    readable = [made for made in all_of_them if made.readable]
    return {
        "recordings": len(readable),
        "failures": len(all_of_them) - len(readable),
        "incomplete": sum(not made.complete for made in readable),
        "kinds": Counter(made.kind for made in all_of_them),
        "kernels": Counter(made.kernel for made in readable),
        "days": Counter(made.day for made in readable),
        "findings": Counter(_findings(readable)),
        "each": [asdict(made) for made in all_of_them],
    }


def _findings(recordings: Iterable[Made]) -> Iterator[str]:
    for made in recordings:
        yield from made.findings


def main() -> None:
    """Make what is asked on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--number", type=int, default=100)
    parser.add_argument("--seed", type=int, default=18)
    parser.add_argument("--bytes", type=int, default=0, help="of each at least")
    asked = parser.parse_args()
    try:
        make(asked.out, asked.number, asked.seed, asked.bytes)
    except UserError as error:
        sys.exit(f"fleet_recordings: {error}")


if __name__ == "__main__":
    main()
