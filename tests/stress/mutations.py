# SPDX-License-Identifier: Apache-2.0
"""What the fuzzer does to a recording: at every level at which somebody could change one.

A recording is taken apart into blocks, whose JSON and events are changed, then put together again
with checksums that are right; only then are its frames and bytes changed. Most of what is changed
gets past the checksums that way, and most of the JSON stays JSON.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Sequence
from tempfile import TemporaryFile
from typing import Any, Protocol, TypeVar

from balloontrace import events
from balloontrace.recording import layout
from balloontrace.recording.block import Block
from balloontrace.recording.blocks import read_blocks
from balloontrace.recording.layout import BOTH, DIFFERENCES, EVENTS, HEADER
from balloontrace.recording.writer import Writer

Blocks = list[tuple[int, bytes]]
"""Type and payload of each block; in front of what is BOTH, two bytes that say where its events
end."""

_ITEM_BYTES = events.RING_HEADER_BYTES + events.record_bytes()

NUMBERS = (0, 1, 2, 3, 255, 256, 4096, 1 << 16, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 53)
EDGES = (*NUMBERS, (1 << 62) + 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
ODD: tuple[Any, ...] = (
    *(None, True, False, -1, 0.5, 1e308, -0.0, float("nan"), float("inf"), 10**400, *EDGES),
    *("", "\x1b[31m", "<script>", "\u202e", "\ud800", "=1+1", "\0", "x" * 10_000, "\n", "7"),
    *([], {}, [1, 2], {"a": 1}, [[]], [None], {"": None}, ["fill"], {"7": {"cpu": [1, 2]}}),
)
"""Values that may stand anywhere in the JSON."""

FORMATS = (
    *("O", "<u8", "<u4", "<u2", "u1", "<i8", "<f8", "?", "<M8[ns]", "(2,)<u4", "<u4,<u4", ">u4"),
    *("S16", "S1", "S0", "S4000", "V8", "U4", "x", ""),
)
"""Types that a header may give the fields of events."""


class Dice(Protocol):
    """Who decides: atheris's FuzzedDataProvider."""

    def ConsumeIntInRange(self, least: int, most: int) -> int:
        """A number from `least` to `most`."""

    def ConsumeBytes(self, count: int) -> bytes:
        """So many bytes, or fewer."""


_Choice = TypeVar("_Choice")


def pick(dice: Dice, choices: Sequence[_Choice]) -> _Choice:
    """One of a sequence that has any."""
    return choices[dice.ConsumeIntInRange(0, len(choices) - 1)]


def blocks_of(data: bytes) -> Blocks:
    """What a file consists of."""
    found = [block for block in read_blocks(data) if isinstance(block, Block)]
    return [
        (b.kind, b.item_bytes.to_bytes(2, "little") + b.payload if b.kind == BOTH else b.rows)
        for b in found
    ]


def framed(blocks: Blocks) -> bytes:
    """A file of these blocks, with checksums that are right."""
    said_from = {_differences(*block)[: layout.SAID_FROM.size] for block in blocks}
    with TemporaryFile() as file:
        writer = Writer(file.fileno())
        for number, (kind, payload) in enumerate(blocks):
            referred = layout.SAID_FROM.pack(number) in said_from
            if kind == EVENTS:
                writer.events(payload)
            elif kind == BOTH:
                raw, events_end = payload[2:], int.from_bytes(payload[:2], "little")
                writer._append(kind, layout.ZLIB, events_end, len(raw), zlib.compress(raw, 1))
            else:
                writer._block(kind, payload, layout.REFERENCE if referred else 0)
        file.seek(0)
        return file.read()


def _differences(kind: int, payload: bytes) -> bytes:
    """The differences in a block; none: b''."""
    if kind == BOTH:
        return payload[2 + int.from_bytes(payload[:2], "little") :]
    return payload if kind == DIFFERENCES else b""


def spliced(whole: bytes, dice: Dice) -> bytes:
    """`whole` with some of it replaced."""
    at = dice.ConsumeIntInRange(0, len(whole))
    gone = dice.ConsumeIntInRange(0, 16)
    return whole[:at] + dice.ConsumeBytes(dice.ConsumeIntInRange(0, 16)) + whole[at + gone :]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to everything in a JSON document."""
    inner: list[tuple[Any, Any]] = list(value.items()) if isinstance(value, dict) else []
    if isinstance(value, list):
        inner = list(enumerate(value))
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


def _at(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def _change_document(document: Any, dice: Dice) -> Any:
    """One change of a JSON document: of a value, a key, or of what stands where."""
    paths = places(document)[:0:-1]
    if not paths:
        return pick(dice, ODD)
    path = pick(dice, paths)
    holder, key = _at(document, path[:-1]), path[-1]
    match dice.ConsumeIntInRange(0, 5):
        case 0 | 1:
            holder[key] = pick(dice, ODD)
        case 2:
            del holder[key]
        case 3:  # what stands elsewhere
            holder[key] = json.loads(json.dumps(_at(document, pick(dice, paths))))
        case 4 if isinstance(holder, dict):
            holder[str(pick(dice, ODD))[:40]] = holder.pop(key)
        case 5 if isinstance(holder, dict):
            for name in holder:
                holder[name] = holder[key]
        case _:
            holder[key] = [holder[key]]
    return document


def change_json(blocks: Blocks, dice: Dice) -> None:
    """Change a header, a sample or a trailer."""
    telling = [n for n, (kind, _) in enumerate(blocks) if kind not in (EVENTS, DIFFERENCES, BOTH)]
    if not telling:
        return
    first, last = telling[0], telling[-1]
    place = pick(dice, (pick(dice, telling), last, first, first))
    kind, payload = blocks[place]
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        return
    for _ in range(dice.ConsumeIntInRange(1, 3)):
        document = _change_document(document, dice)
    blocks[place] = (kind, json.dumps(document).encode())


def change_layout(blocks: Blocks, dice: Dice) -> None:
    """Describe the events otherwise: the type of a field, its name, its place."""
    place = next((n for n, (kind, _) in enumerate(blocks) if kind == HEADER), None)
    if place is None:
        return
    try:
        header = json.loads(blocks[place][1])
        field = pick(dice, header["record"])
        match dice.ConsumeIntInRange(0, 4):
            case 0 | 1:
                field[1] = pick(dice, FORMATS)
            case 2:
                field[0] = pick(dice, header["record"])[0]
            case 3:
                header["record"].append([str(pick(dice, ODD))[:40], pick(dice, FORMATS)])
            case _:
                header["ring_header_bytes"] = pick(dice, (0, 1, 4000, -1, *EDGES))
    except (ValueError, RecursionError, KeyError, TypeError, IndexError, AttributeError):
        return
    blocks[place] = (HEADER, json.dumps(header).encode())


def change_events(blocks: Blocks, dice: Dice) -> None:
    """Give fields of some events values at the edges of what they can hold, or another's."""
    holding = [n for n, (kind, p) in enumerate(blocks) if kind == EVENTS and len(p) >= _ITEM_BYTES]
    if not holding:
        return
    place = pick(dice, holding)
    items = bytearray(blocks[place][1])
    number = len(items) // _ITEM_BYTES
    for _ in range(dice.ConsumeIntInRange(1, 4)):
        first = dice.ConsumeIntInRange(0, number - 1)
        many = pick(dice, (1, 1, 2, number))
        start, width = pick(dice, _FIELDS)
        if dice.ConsumeIntInRange(0, 3):
            value = pick(dice, EDGES) & ((1 << 8 * width) - 1)
            new = value.to_bytes(width, "little")
        else:
            other = dice.ConsumeIntInRange(0, number - 1) * _ITEM_BYTES + start
            new = bytes(items[other : other + width])
        for item in range(first, min(first + many, number)):
            at = item * _ITEM_BYTES + start
            items[at : at + width] = new
    blocks[place] = (EVENTS, bytes(items))


def _fields() -> list[tuple[int, int]]:
    """Where each field of an event begins, and its bytes."""
    found, at = [], events.RING_HEADER_BYTES
    for _, form in events.record_layout():
        width = int(form.lstrip("<|uSV"))
        found.append((at, width))
        at += width
    return found


_FIELDS = _fields()


def change_order(blocks: Blocks, dice: Dice) -> None:
    """Take blocks out, exchange them, say them twice, cut them, call them another type."""
    if not blocks:
        return
    one = dice.ConsumeIntInRange(0, len(blocks) - 1)
    other = dice.ConsumeIntInRange(0, len(blocks) - 1)
    kind, payload = blocks[one]
    match dice.ConsumeIntInRange(0, 6):
        case 0:
            del blocks[min(one, other) : max(one, other)]
        case 1:
            blocks[one], blocks[other] = blocks[other], blocks[one]
        case 2:
            blocks.insert(other, blocks[one])
        case 3:
            blocks[one] = (kind, payload[: dice.ConsumeIntInRange(0, len(payload))])
        case 4:
            blocks[one] = (dice.ConsumeIntInRange(0, 255), payload)
        case 5:
            blocks[one] = (kind, spliced(payload, dice))
        case _:  # inflates to much
            blocks[one] = (kind, payload + bytes(1 << pick(dice, (10, 16, 20, 22))))


def change_frame(data: bytes, dice: Dice) -> bytes:
    """Change a field of a frame, and make its checksum right again."""
    starts = [n for n in range(len(data)) if data.startswith(layout.SYNC, n)]
    if not starts:
        return data
    start = pick(dice, starts)
    frame = data[start : start + layout.FRAME.size]
    if len(frame) < layout.FRAME.size:
        return data
    fields = list(layout.FRAME.unpack(frame))
    which = dice.ConsumeIntInRange(1, 6)
    width = (0, 1, 1, 2, 4, 4, 4)[which]
    fields[which] = pick(dice, EDGES) & ((1 << 8 * width) - 1)
    stored = data[start + layout.FRAME.size :][: fields[5]]
    summed = layout.FRAME.pack(*fields)[: layout.SUMMED]
    crc = zlib.crc32(stored, zlib.crc32(summed))
    return data[:start] + summed + struct.pack("<I", crc) + data[start + layout.FRAME.size :]


def promise(data: bytes, dice: Dice) -> bytes:
    """Add frames that each promise some MiB of what follows, with checksums that are wrong."""
    length = pick(dice, (1 << 12, 1 << 20, 4 << 20, 32 << 20))
    frame = layout.FRAME.pack(layout.SYNC, EVENTS, 1, 0, 0, length, length, 1)
    return data + frame * pick(dice, (1, 100, 40_000))


def cut(data: bytes, dice: Dice) -> bytes:
    """What a reader sees of a recording still under way, or of one that was torn."""
    return data[: dice.ConsumeIntInRange(0, len(data))]


OF_BLOCKS: tuple[Callable[[Blocks, Dice], None], ...] = (
    *(change_json, change_json, change_json, change_json, change_events, change_events),
    *(change_events, change_order, change_order, change_layout),
)
OF_BYTES: tuple[Callable[[bytes, Dice], bytes], ...] = (change_frame, promise, cut, spliced)


def mutated(blocks: Blocks, dice: Dice) -> bytes:
    """A file of what these blocks were, as the dice say: nothing is changed by dice that say 0."""
    blocks = list(blocks)
    for _ in range(dice.ConsumeIntInRange(0, 3)):
        pick(dice, OF_BLOCKS)(blocks, dice)
    data = framed(blocks)
    if dice.ConsumeIntInRange(0, 3) < 3:
        return data
    return pick(dice, OF_BYTES)(data, dice)
