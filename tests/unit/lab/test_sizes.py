# SPDX-License-Identifier: Apache-2.0
"""Sizes as people write them."""

from __future__ import annotations

import pytest

from balloontrace.errors import UserError
from balloontrace.lab.sizes import format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("4G", 4 << 30), ("512M", 512 << 20), ("4GiB", 4 << 30), (" 1 t ", 1 << 40), ("4096", 4096)],
)
def test_sizes_are_binary(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "0G", "-1G", "1.5G", "G", "4X", "4 G G"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize("text", ["4G", "1536M", "2T", "5K", "4097"])
def test_formatting_is_the_inverse(text: str) -> None:
    assert format_size(parse_size(text)) == text
