# SPDX-License-Identifier: Apache-2.0
"""What the loader gives the recorder over their socket: a header, and open file descriptors."""

from __future__ import annotations

import _thread
import marshal
import os
import struct

from balloontrace.errors import UserError
from balloontrace.tracers.machine.c_modules import signal, socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

MAPS = (
    *("events", "counters", "sums", "calls", "control", "sent_stats", "last_target"),
    *("layout", "fresh", "hinting"),
)
"""The maps of bpf/balloon.c. The recorder needs those of the first line, who
attaches again needs all."""

_MESSAGE_BYTES = 1 << 18
_MAX_DESCRIPTORS = 250
"""SCM_MAX_FD is 253 (include/net/scm.h)."""


_DESCRIPTOR = struct.Struct("@i")

_CLOSERS = 7
"""Threads beside the one that waits for them: more gain nothing (41 probes: 1 s, 3.6 s by one)."""


_STACK_BYTES = 1 << 18
"""Of each such thread. One of 8 MiB would get a transparent huge page, which is 2 MiB resident."""


class Handover:
    """content: for the recording; maps: name of MAPS -> descriptor; code: of a file with the
    compiled programs, in whose maps' place the names of `maps` stand, for who attaches again;
    probes: descriptors that hold the attached programs; programs: of those. A handover after the
    first has no maps and no code."""

    __slots__ = ("code", "content", "maps", "probes", "programs")

    def __init__(
        self,
        content: dict[str, Any],
        maps: dict[str, int],
        code: list[int],
        probes: list[int],
        programs: list[int],
    ) -> None:
        self.content, self.maps, self.code = content, maps, code
        self.probes, self.programs = probes, programs


def detach(probes: list[int]) -> None:
    """Close `probes` of a handover, several at the same time.

    Each closing waits for a grace period of RCU or two, some 10 to 80 ms; several share theirs.
    """
    _thread.stack_size(_STACK_BYTES)  # `threading` would stay in the recorder's memory
    left = list(probes)

    def close() -> None:
        try:
            while True:
                os.close(left.pop())
        except IndexError:
            pass

    def close_beside(running: _thread.LockType) -> None:
        try:
            close()
        finally:
            running.release()

    threads: list[_thread.LockType] = []
    for _ in range(min(_CLOSERS, len(probes) - 1)):
        running = _thread.allocate_lock()
        running.acquire()
        try:
            _thread.start_new_thread(close_beside, (running,))
        except RuntimeError:  # no thread more (pids.max, ulimit -u): it takes longer
            break
        threads.append(running)
    close()
    for running in threads:
        running.acquire()


def channel() -> tuple[socket.socket, socket.socket]:
    """The recorder's and the loader's end of a socket that keeps messages whole."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MESSAGE_BYTES)
    return ends


def in_child(work: Callable[[], Handover]) -> tuple[int, socket.socket]:
    """Fork a process that does `work` and hands over the result, or why there is none.

    Returns its process id and the socket on which it answers. Raises UserError if there can be no
    process more.
    """
    ours, theirs = channel()
    try:
        pid = os.fork()
    except OSError as error:
        ours.close()
        theirs.close()
        raise UserError(
            f"no process can be begun that attaches the probes: {error.strerror}",
            "more processes (ulimit -u, pids.max, TasksMax), or more memory that may be committed",
        ) from None
    if pid:
        theirs.close()
        return pid, ours
    try:
        ours.close()
        signal.set_wakeup_fd(-1)
        # Ctrl-C is the recorder's to handle; it goes to every process of the terminal's group.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        send(theirs, work())
    except UserError as error:
        send_error(theirs, error)
    except BaseException:
        import traceback  # not for nothing in the recorder's memory

        last = traceback.format_exc().strip().splitlines()[-1]
        send_error(theirs, UserError(f"the loader failed: {last}"))
    finally:
        os._exit(0)


def send(end: socket.socket, handover: Handover) -> None:
    """Give `handover` to the other side. Raises OSError."""
    groups = (list(handover.maps.values()), handover.code, handover.probes, handover.programs)
    message = {
        "content": handover.content,
        "maps": list(handover.maps),
        "sizes": [len(group) for group in groups],
    }
    held = [descriptor for group in groups for descriptor in group]
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"@{len(held)}i", *held))
    end.sendmsg([marshal.dumps(message)], [rights])


def send_error(end: socket.socket, error: UserError) -> None:
    """Tell the other side that, and why, there will be none. Raises OSError."""
    fields = [error.message, error.hint, error.exit_code]
    end.send(marshal.dumps({"error": fields}))


def receive(end: socket.socket) -> Handover:
    """The other side's handover.

    Raises UserError with what the loader says went wrong, if it died without a word, or if this
    process may not have so many files open.
    """
    space = socket.CMSG_LEN(_MAX_DESCRIPTORS * _DESCRIPTOR.size)
    data, ancillary, _, _ = end.recvmsg(_MESSAGE_BYTES, space)
    if not data:
        raise UserError("the loader died at its work", "compiling needs about 120 MiB; see dmesg")
    message = marshal.loads(data)  # noqa: S302 - of our own child
    if "error" in message:
        raise UserError(*message["error"])
    # Of one that did not fit, a part may have come.
    whole = [data[: len(data) // _DESCRIPTOR.size * _DESCRIPTOR.size] for _, _, data in ancillary]
    descriptors = [number for part in whole for (number,) in _DESCRIPTOR.iter_unpack(part)]
    for descriptor in descriptors:  # a command that outlived us would keep the probes attached
        os.set_inheritable(descriptor, False)
    if len(descriptors) < sum(message["sizes"]):
        raise UserError(
            f"this process may have too few files open for {sum(message['sizes'])} more",
            "raise the limit (ulimit -n)",
        )
    held = iter(descriptors)
    maps, code, probes, programs = ([next(held) for _ in range(size)] for size in message["sizes"])
    named = dict(zip(message["maps"], maps))
    return Handover(message["content"], named, code, probes, programs)
