# SPDX-License-Identifier: Apache-2.0
"""How a process of ours begins: by Python's -c, which loads less than -m does."""

from __future__ import annotations


def program(module: str, function: str) -> str:
    """What -c is given to end with what a function returns.

    Nothing is imported from the current directory, as with -P, which Python has since 3.11.
    """
    return (
        "import sys; sys.path = [place for place in sys.path if place]; "
        f"from {module} import {function}; sys.exit({function}())"
    )
