# SPDX-License-Identifier: Apache-2.0
"""The JSON in a recording's blocks, without what is not as it must be: that is damage."""

from __future__ import annotations

import json
from itertools import zip_longest
from typing import Any

from balloontrace import untrusted_json
from balloontrace.errors import UserError
from balloontrace.recording import layout
from balloontrace.recording.block import Damage

_SHAPES = {
    layout.HEADER: untrusted_json.HEADER,
    layout.SAMPLE: untrusted_json.SAMPLE,
    layout.TRAILER: untrusted_json.TRAILER,
}

KINDS = tuple(_SHAPES)
"""Types of blocks that are JSON."""


def parsed(rows: bytes) -> Any:
    """What the JSON says; None if it is none."""
    try:
        return json.loads(rows)
    except (ValueError, RecursionError):
        return None


def fitted(
    content: Any, kind: int, offset: int, length: int
) -> tuple[dict[str, Any] | None, list[Damage]]:
    """What fits of the content of a block of one of KINDS, None if nothing does; and the damage.

    offset: of the block in its file; length: of its payload.
    """
    fitting = untrusted_json.Fitting()
    found = fitting.fit(content, _SHAPES[kind]) if content is not None else None
    if not isinstance(found, dict):
        return None, [Damage(offset, length)]
    return found, [Damage(offset, len(repr(value))) for value in fitting.dropped]


def check_format(path: str, version: int) -> None:
    """Raises UserError for a format that is newer than this reader."""
    if version > layout.FORMAT_VERSION:
        raise UserError(
            f"{path} has format {version}, this version reads up to {layout.FORMAT_VERSION}",
            "upgrade balloontrace",
        )


def since(begun: Any, now: Any) -> Any:
    """What was counted after `begun`, where that says so; what was not known then is not known."""
    if isinstance(begun, dict) and isinstance(now, dict):
        counted = {key: since(begun[key], value) for key, value in now.items() if key in begun}
        return {**now, **counted}
    if isinstance(begun, list) and isinstance(now, list):
        return [
            max(0, number - then)
            for number, then in zip_longest(now, begun[: len(now)], fillvalue=0)
        ]
    if isinstance(begun, int) and isinstance(now, int):
        return max(0, now - begun)
    return None
