# SPDX-License-Identifier: Apache-2.0
"""The view of one guest on a terminal: lines of text (layout), and the program that shows them."""

from balloontrace.live.screen.app import run as run
from balloontrace.live.screen.app import take_terminal as take_terminal
