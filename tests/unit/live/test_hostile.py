# SPDX-License-Identifier: Apache-2.0
"""A stream whose frames are right and whose content is not: lines come of it, or a refusal."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from balloontrace.errors import UserError
from balloontrace.live import json_lines
from balloontrace.live.model import Model
from balloontrace.live.plain import Lines
from tests.stress.mutations import blocks_of, mutated

DATA = Path(__file__).parents[2] / "data"
NAMES = ("6.1-stock-oom", "6.1-driver-reloaded", "6.1-shrinker-reclaim")
BLOCKS = [blocks_of((DATA / f"{name}.btrace").read_bytes()) for name in NAMES]


class Dice:
    """As atheris decides, by chance that can be repeated."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def ConsumeIntInRange(self, least: int, most: int) -> int:
        """A number from `least` to `most`."""
        return self._random.randint(least, most)

    def ConsumeBytes(self, count: int) -> bytes:
        """So many bytes."""
        return self._random.randbytes(count)


@pytest.mark.parametrize("seed", [*range(60), 642, 1162])
def test_whatever_a_stream_says_is_shown(seed: int) -> None:
    data = mutated(BLOCKS[seed % len(BLOCKS)], Dice(seed))
    model, lines = Model("stream"), Lines()
    try:
        for begin in range(0, len(data), 20_000):
            model.feed(data[begin : begin + 20_000], begin / 1000)
        model.close()
    except UserError:
        return
    for at in (None, *list(model.seconds or ())[:3]):
        view = model.view(1000.0, at=at)
        json.loads(json_lines.line(view), parse_constant=pytest.fail)
        assert lines.of(view).isascii()
