# SPDX-License-Identifier: Apache-2.0
"""Compares what a report says with what SQL says (ask_duckdb.py)."""

from __future__ import annotations

from typing import Any


def differing(reported: Any, asked: Any, path: str = "") -> list[str]:
    """Where what was asked of DuckDB is not what the report says."""
    if isinstance(asked, dict):
        return [d for key in asked for d in differing(reported[key], asked[key], f"{path}/{key}")]
    if path == "/episodes":  # SQL is asked of those on the way to a target alone
        reported = [row for row in reported if row["kind"] == "target"]
    if isinstance(asked, list):
        if len(reported) != len(asked):
            return [f"{path}: {len(reported)} and {len(asked)} rows"]
        pairs = enumerate(zip(reported, asked, strict=True))
        return [d for i, (one, other) in pairs for d in differing(one, other, f"{path}/{i}")]
    return [] if reported == asked else [f"{path}: {reported} and {asked}"]
