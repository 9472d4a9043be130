# SPDX-License-Identifier: Apache-2.0
"""`signal` and `socket` without the standard library's layer of Python above them.

That layer makes enums of their constants, and loads `enum`, `selectors` and what these need: 0.8
MiB of a small guest, for names that nobody sees. All that the recorder uses is in C, and called the
same; sending file descriptors alone is not (attach/handover.py).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as signal
    import socket as socket
else:
    import _signal as signal
    import _socket as socket

__all__ = ("signal", "socket")
