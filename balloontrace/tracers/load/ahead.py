# SPDX-License-Identifier: Apache-2.0
"""A loader that is begun before the command line is understood.

In a slow guest half of what a recording waits for is what the loader must import, and the kernel's
symbols: both come in a process of its own, while the command line is still being parsed. It loads
nothing until it is told what, and is gone without a word if nobody tells it.
"""

from __future__ import annotations

import marshal
import os
from typing import TYPE_CHECKING

from balloontrace.errors import UserError
from balloontrace.tracers.attach import handover
from balloontrace.tracers.attach.kernel import Kernel
from balloontrace.tracers.machine.balloon import identity
from balloontrace.tracers.machine.c_modules import socket

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from balloontrace.tracers.attach.forced import Forced

_SENSELESS = ("--counters", "--help")
"""Options of `record` with which nothing is loaded."""

_begun: list[tuple[int, socket.socket, int]] = []
"""At most one: its process id, the socket on which it answers, and where it is told."""


def begin(verb: str, arguments: Sequence[str]) -> None:
    """Begin one if the verb with these arguments is likely to want it."""
    if verb == "record" and not {*_SENSELESS} & {*arguments}:
        hold_standard_streams()
        orders, told = os.pipe()
        try:
            _begun.append((*handover.in_child(lambda: _load_as_told(orders, told)), told))
        except UserError:  # `start` says so, if it is so still
            os.close(told)
        os.close(orders)


def start(
    ring_bytes: int, forced: Forced, keep: bool = True, silent: bool = False
) -> tuple[int, socket.socket]:
    """Tell the loader that is begun, or fork one. Returns its process id and the socket on which it
    answers.

    keep: what had to be compiled may be left in the cache; silent: calls are summed up, and no
    events written.
    """
    tried = {**forced._asdict(), "rungs": dict(forced.rungs)}
    orders = marshal.dumps((ring_bytes, tried, keep, silent))
    if not _begun:
        return handover.in_child(lambda: _load(lambda: orders))
    pid, channel, told = _begun.pop()
    try:
        os.write(told, orders)
    except BrokenPipeError:  # it has failed, and says so on the socket
        pass
    os.close(told)
    return pid, channel


def _load_as_told(orders: int, told: int) -> handover.Handover:
    os.close(told)  # the parent's, whose end is to be seen

    def read() -> bytes:
        with open(orders, "rb") as file:
            said = file.read()
        if not said:  # the command line was wrong, or not for tracing
            os._exit(0)
        return said

    return _load(read)


def _load(orders: Callable[[], bytes]) -> handover.Handover:
    driver = identity()
    kernel = Kernel() if driver else None  # it reads while the rest is imported
    from balloontrace.tracers.load import loader

    said = orders()
    if identity() != driver:  # another one came since, or went
        kernel = Kernel() if identity() else None
    return loader.load(kernel, *marshal.loads(said))  # noqa: S302 - of our parent's making


def hold_standard_streams() -> None:
    """A standard stream that is closed would be the next file that is opened: the recording."""
    while (null := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(null, True)
    os.close(null)
