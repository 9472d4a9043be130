"""What the loader gives the recorder over their socket: a header, and open file descriptors."""

from __future__ import annotations

import json
import socket
from typing import Any, NamedTuple

from balloontrace.errors import UserError

MAPS = ("events", "counters", "calls", "level", "stages")
"""The maps handed over, in this order, before the probes' descriptors. `stages` is only held: the
kernel empties an array of programs when nobody has it open any more."""

_MESSAGE_BYTES = 1 << 18
_MAX_DESCRIPTORS = 250
"""SCM_MAX_FD is 253 (include/net/scm.h)."""


class Handover(NamedTuple):
    """header: of the recording; maps: name of MAPS -> descriptor; probes: those of the perf events
    that hold the attached programs, in order of attachment. Closing one detaches it."""

    header: dict[str, Any]
    maps: dict[str, int]
    probes: list[int]


def channel() -> tuple[socket.socket, socket.socket]:
    """The recorder's and the loader's end of a socket that keeps messages whole."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MESSAGE_BYTES)
    return ends


def send(end: socket.socket, handover: Handover) -> None:
    """Give `handover` to the other side. Raises OSError."""
    descriptors = [handover.maps[name] for name in MAPS] + handover.probes
    socket.send_fds(end, [json.dumps(handover.header).encode()], descriptors)


def send_error(end: socket.socket, error: UserError) -> None:
    """Tell the other side that, and why, there will be none. Raises OSError."""
    fields = [error.message, error.hint, error.exit_code]
    end.send(json.dumps({"error": fields}).encode())


def receive(end: socket.socket) -> Handover:
    """The other side's handover.

    Raises UserError with what the loader says went wrong, or if it died without a word.
    """
    data, descriptors, _, _ = socket.recv_fds(end, _MESSAGE_BYTES, _MAX_DESCRIPTORS)
    if not data:
        raise UserError(
            "the loader died while it compiled", "it needs about 120 MiB meanwhile; see dmesg"
        )
    message = json.loads(data)
    if "error" in message:
        raise UserError(*message["error"])
    maps = dict(zip(MAPS, descriptors, strict=False))
    return Handover(message, maps, list(descriptors[len(MAPS) :]))
