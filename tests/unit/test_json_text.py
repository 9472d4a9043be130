# SPDX-License-Identifier: Apache-2.0
"""JSON as the recorder writes it: the standard library reads the same value from it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balloontrace.json_text import dumps

TEXT = st.text(st.characters())  # surrogates among them
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
)


@given(VALUES.filter(lambda value: "Infinity" not in json.dumps(value)))
def test_what_is_written_is_what_the_standard_library_reads(value: object) -> None:
    written = dumps(value)
    # By way of its own text, for the halves of a pair of surrogates are read as one character.
    assert json.loads(written) == json.loads(json.dumps(value))
    assert written.isascii()


def test_there_are_no_spaces_between() -> None:
    value = {"a": [1, (2.5, True)], "b": {"c": None}}
    assert dumps(value) == '{"a":[1,[2.5,true]],"b":{"c":null}}'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_does_not_have_are_null(value: float) -> None:
    assert dumps([value]) == "[null]"


@pytest.mark.parametrize("value", [b"bytes", {1: 2}, {"a": {1}}, object()])
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="JSON"):
        dumps(value)
