# SPDX-License-Identifier: Apache-2.0
"""What the one file for guests (bundle.py) and what runs from it agree on."""

from __future__ import annotations

RECORDERS = "recorder.txt"
"""In it: the names of what the recorder and the netlink process import, one a line."""
