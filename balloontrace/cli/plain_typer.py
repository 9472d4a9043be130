# SPDX-License-Identifier: Apache-2.0
"""Typer without rich, if nothing has imported either before.

Some versions of Typer (Debian 13's) import rich at once, for help and usage errors in boxes. Here
they are Click's plain ones, whatever is installed.
"""

from __future__ import annotations

import sys

_first = "rich" not in sys.modules
if _first:
    sys.modules["rich"] = None  # type: ignore[assignment]  # importing it is an ImportError now

import typer  # noqa: E402, F401

if _first:  # reports are made with it
    del sys.modules["rich"]
