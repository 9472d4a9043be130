# SPDX-License-Identifier: Apache-2.0
"""A server of one page, for a loop that must not be held up: nothing here blocks.

It has an epoll of its own, whose descriptor the loop watches like any other. A client that is slow
has until its deadline, one that is one too many takes the place of the oldest: memory is bounded by
CONNECTIONS pages.
"""

from __future__ import annotations

import select
import time

from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.tracers.machine.c_modules import socket
from balloontrace.watch import http

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_HOST = "127.0.0.1"

CONNECTIONS = 8
"""Clients at a time."""

DEADLINE_S = 5.0
"""From accepting a connection to its end."""

REQUEST_BYTES = 4096
"""A request line and header are smaller; Prometheus sends some 400 bytes."""

IGNORED_BYTES = 1 << 16
"""What a refused client may still send before it is cut off."""

_BACKLOG = 32
_ACCEPTED = 16
"""Clients that may wait to be accepted; those that are in one call of `serve`."""


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `PORT`, `ADDRESS:PORT` or `[IPV6]:PORT`.

    Raises UserError if it is none of these: names are not looked up, which could take its time.
    """
    host, colon, port = text.rpartition(":")
    if not colon:
        host = DEFAULT_HOST
    if host.startswith("[") and host.endswith("]"):
        family, host = socket.AF_INET6, host[1:-1]
    else:
        family = socket.AF_INET
    if not _is_address(family, host) or not _is_port(port):
        raise UserError(
            f"cannot listen on {text!r}",
            "give PORT, ADDRESS:PORT or [IPV6]:PORT, such as 127.0.0.1:9758",
            EXIT_USAGE,
        )
    return host, int(port)


def _is_address(family: int, text: str) -> bool:
    try:
        socket.inet_pton(family, text)
    except (OSError, ValueError):
        return False
    return True


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) < 1 << 16


_PAUSE_S = 1.0
"""Where there is no descriptor for one client more."""


class Server:
    """Answers HTTP clients whenever the loop calls."""

    def __init__(self, address: tuple[str, int], page: Callable[[], bytes]) -> None:
        """Listen. address: of `parse_address`, or with port 0, for any that is free; page: makes
        the metrics, when they are asked for. Raises UserError if it cannot listen there."""
        self._make_page, self._page = page, b""
        self._listener = _listen(address)
        self._epoll = select.epoll()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._connections: dict[int, _Connection] = {}
        self._resumes_s = float("inf")

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def fileno(self) -> int:
        """What is readable while there is something to do for `serve`."""
        return self._epoll.fileno()

    def serve(self) -> None:
        """Do what can be done at once. Raises what making the page does."""
        ready = [descriptor for descriptor, _ in self._epoll.poll(0)]
        for descriptor in ready:
            if descriptor in self._connections:
                self._go_on(self._connections[descriptor])
        if self._listener.fileno() in ready:  # last: it may close others, and reuse their numbers
            self._accept()
        self._page = b""

    def expire(self, now: float) -> None:
        """Drop clients whose time is up. now: of time.monotonic(). To be called at `due_s`."""
        for connection in list(self._connections.values()):
            if connection.deadline_s <= now:
                self._drop(connection)
        if self._resumes_s <= now:
            self._resumes_s = float("inf")
            self._epoll.modify(self._listener.fileno(), select.EPOLLIN)

    @property
    def due_s(self) -> float:
        """When `expire` has something to do next, of time.monotonic(); infinite: never."""
        deadlines = (connection.deadline_s for connection in self._connections.values())
        return min([self._resumes_s, *deadlines])

    def close(self) -> None:
        """Hang up on everybody, and listen no more."""
        for connection in list(self._connections.values()):
            self._drop(connection)
        self._epoll.close()
        self._listener.close()

    def _accept(self) -> None:
        for _ in range(_ACCEPTED):
            try:
                descriptor, _ = self._listener._accept()  # type: ignore[attr-defined]
            except BlockingIOError:
                return
            except OSError:
                # No descriptors, most likely. It would be ready again at once: not before `expire`.
                self._epoll.modify(self._listener.fileno(), 0)
                self._resumes_s = time.monotonic() + _PAUSE_S
                return
            self._add(_Connection(descriptor))

    def _add(self, connection: _Connection) -> None:
        if len(self._connections) == CONNECTIONS:
            self._drop(next(iter(self._connections.values())))
        self._connections[connection.fileno()] = connection
        self._epoll.register(connection.fileno(), select.EPOLLIN)
        self._go_on(connection)  # its request is there already, as a rule

    def _go_on(self, connection: _Connection) -> None:
        try:
            ended = connection.go_on(self._page_of_now)
        except BlockingIOError:
            ended = False
        except OSError:
            ended = True
        if ended:
            self._drop(connection)
        else:
            wanted = select.EPOLLOUT if connection.is_sending else select.EPOLLIN
            self._epoll.modify(connection.fileno(), wanted)

    def _page_of_now(self) -> bytes:
        """The page: made once for all whose requests are read in one call of `serve`."""
        self._page = self._page or self._make_page()
        return self._page

    def _drop(self, connection: _Connection) -> None:
        del self._connections[connection.fileno()]
        connection.close()  # which takes it out of the epoll, too


def _listen(address: tuple[str, int]) -> socket.socket:
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = None
    try:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        if listener:
            listener.close()
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise UserError(f"cannot listen on {shown}: {error.strerror}") from None
    return listener


class _Connection:
    """One client: its request is received, then the answer sent.

    Who was refused may be sending still, and would lose the answer to a reset if the connection
    were closed: what comes is ignored until the client hangs up.
    """

    __slots__ = ("_ignored", "_received", "_refused", "_socket", "_unsent", "deadline_s")

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        self.deadline_s = time.monotonic() + DEADLINE_S
        self._received, self._unsent = b"", memoryview(b"")
        self._refused, self._ignored = False, 0

    @property
    def is_sending(self) -> bool:
        """Whether it waits until it can send; else, until there is something to receive."""
        return bool(self._unsent)

    def fileno(self) -> int:
        """Of its socket."""
        return self._socket.fileno()

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def go_on(self, page: Callable[[], bytes]) -> bool:
        """Take one step; returns whether it was the last. Raises OSError: BlockingIOError if there
        is nothing to do, another if the client is gone."""
        if self._unsent:
            return self._send()
        if self._refused:
            return self._ignore()
        return self._receive(page)

    def _receive(self, page: Callable[[], bytes]) -> bool:
        data = self._socket.recv(REQUEST_BYTES - len(self._received))
        self._received += data
        head = http.head_of(self._received)
        if head is not None:
            response = http.respond(head, page)
        elif self._received and (not data or len(self._received) == REQUEST_BYTES):
            response = http.refusal()
        else:
            return not data
        self._unsent = memoryview(response.data)
        self._refused = response.status != http.OK
        return self._send()

    def _send(self) -> bool:
        self._unsent = self._unsent[self._socket.send(self._unsent, socket.MSG_NOSIGNAL) :]
        if self._unsent or not self._refused:
            return not self._unsent
        self._socket.shutdown(socket.SHUT_WR)
        return False

    def _ignore(self) -> bool:
        data = self._socket.recv(REQUEST_BYTES)
        self._ignored += len(data)
        return not data or self._ignored > IGNORED_BYTES
