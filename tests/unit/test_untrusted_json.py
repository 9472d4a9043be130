# SPDX-License-Identifier: Apache-2.0
"""A recording whose frames are right and whose content is not: nothing but a report comes of it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from balloontrace import untrusted_json
from balloontrace.analysis.json import report_json
from balloontrace.analysis.text.report import report_text
from balloontrace.analysis.timeline.picture import picture
from balloontrace.analysis.timeline.terminal import timeline
from balloontrace.errors import UserError
from balloontrace.recording.block import Block
from balloontrace.recording.blocks import read_blocks
from balloontrace.recording.layout import EVENTS
from balloontrace.recording.reader import read_recording
from tests.stress.mutations import framed, places

DATA = Path(__file__).parents[1] / "data"
PLAIN = ("6.1-stock-oom", "6.1-stock-idle", "6.1-driver-reloaded", "6.1-shrinker-reclaim")


def blocks_of(name: str) -> list[Block]:
    found = read_blocks((DATA / f"{name}.btrace").read_bytes())
    return [block for block in found if isinstance(block, Block)]


BLOCKS = {name: blocks_of(name) for name in PLAIN}

WEIRD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        ["\x1b[31m", "<script>", "\u202e", "\ud800", 10**400, [], {}, [1, 2], {"a": 1}]
    ),
)


def changed(document: Any, path: tuple[Any, ...], value: object) -> Any:
    """The document with another value at a path."""
    if not path:
        return value
    copy = document.copy()
    copy[path[0]] = changed(document[path[0]], path[1:], value)
    return copy


@given(data=st.data())
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whatever_a_recording_says_is_reported(tmp_path: Path, data: st.DataObject) -> None:
    blocks = BLOCKS[data.draw(st.sampled_from(PLAIN))]
    telling = [n for n, block in enumerate(blocks) if block.kind != EVENTS]
    chosen = data.draw(st.sampled_from([telling[0], telling[-1], *telling]))
    document = json.loads(blocks[chosen].payload)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(places(document)[1:]))
        document = changed(document, place, data.draw(WEIRD))
        if not isinstance(document, dict):
            break
    contents = [(block.kind, block.payload) for block in blocks]
    contents[chosen] = (blocks[chosen].kind, json.dumps(document).encode())
    path = tmp_path / "fuzzed.btrace"
    try:
        path.write_bytes(framed(contents))
        pictured = picture(str(path))
    except UserError:
        return  # the header is beyond use
    json.loads(report_json(pictured.report))
    text = report_text(
        pictured.report, verbose=True, timeline=partial(timeline, course=pictured.timeline)
    )
    text.encode()
    assert "\x1b" not in text


@pytest.mark.parametrize("name", PLAIN)
def test_a_real_recording_fits(name: str) -> None:
    assert read_recording(str(DATA / f"{name}.btrace")).damage == []


def test_what_does_not_fit_is_left_out_and_counted() -> None:
    fitting = untrusted_json.Fitting()
    sample = {"t_ns": 5, "vmstat": {"a": 1, "b": "no"}, "delays": {"7": {"cpu": [1, 2]}, "x": {}}}
    fitted = fitting.fit({**sample, "unknown": ["kept"]}, untrusted_json.SAMPLE)
    assert fitted == {
        "t_ns": 5,
        "vmstat": {"a": 1},
        "delays": {"7": {"cpu": [1, 2]}},
        "unknown": ["kept"],
    }
    assert fitting.dropped == ["no", "x"]
