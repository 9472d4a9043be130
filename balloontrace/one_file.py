# SPDX-License-Identifier: Apache-2.0
"""What the one file for guests (bundle.py) and what runs from it agree on."""

from __future__ import annotations

from importlib.util import MAGIC_NUMBER

RECORDERS = "recorder.txt"
"""In it: the names of what the recorder and the netlink process import, one a line."""

UNCHECKED = (1).to_bytes(4, "little") + bytes(8)
"""Flags and hash of a compiled module that is not compared with its source (PEP 552)."""


def compiled_recorders() -> str:
    """A zip within it, if it was made by this version of Python: what RECORDERS names, compiled."""
    return f"recorder-{MAGIC_NUMBER[:2].hex()}.zip"
