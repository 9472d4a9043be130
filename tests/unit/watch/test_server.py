# SPDX-License-Identifier: Apache-2.0
"""The server of metrics, with real clients on loopback. One thread is both, as in the recorder."""

from __future__ import annotations

import http.client
import io
import os
import re
import resource
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from balloontrace.errors import EXIT_FAILURE, EXIT_USAGE, UserError
from balloontrace.watch.exposition import CONTENT_TYPE
from balloontrace.watch.server import (
    CONNECTIONS,
    DEADLINE_S,
    IGNORED_BYTES,
    REQUEST_BYTES,
    Server,
    parse_address,
)

GET = b"GET /metrics HTTP/1.1\r\nHost: guest:9713\r\n\r\n"
HEAD = GET.replace(b"GET", b"HEAD")
PAGE = b"balloontrace_attached 1\n"
HUGE_PAGE = b"balloontrace_attached 1\n" * 1_000_000
"""More than the kernel buffers of a connection on loopback."""

PATIENCE_S = 30.0
"""Until a test fails that waits for what does not come."""


class Pages:
    """What makes the page, and counts how often."""

    def __init__(self, page: bytes = PAGE) -> None:
        self.page, self.made = page, 0

    def __call__(self) -> bytes:
        self.made += 1
        return self.page


@contextmanager
def serving(page: Callable[[], bytes], host: str = "127.0.0.1") -> Iterator[Server]:
    server = Server((host, 0), page)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def pages() -> Pages:
    return Pages()


@pytest.fixture
def server(pages: Pages) -> Iterator[Server]:
    with serving(pages) as one:
        yield one


@contextmanager
def client_of(
    server: Server, data: bytes = b"", host: str = "127.0.0.1"
) -> Iterator[socket.socket]:
    """A client that is connected, and has sent `data`; closed at the end."""
    with socket.create_connection((host, server.port), timeout=PATIENCE_S) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.sendall(data)
        yield client


def has_work(server: Server, within_s: float = 0.0) -> bool:
    return bool(select.select([server], [], [], within_s)[0])


def answer(server: Server, client: socket.socket) -> bytes:
    """All that a client receives until the server hangs up, served meanwhile."""
    received = b""
    while True:
        ready, _, _ = select.select([server.fileno(), client.fileno()], [], [], PATIENCE_S)
        assert ready, "neither server nor client has anything to do"
        if server.fileno() in ready:
            server.serve()
        if client.fileno() in ready:
            try:
                data = client.recv(1 << 20)
            except ConnectionResetError:
                return received
            if not data:
                return received
            received += data


def serve_all(server: Server) -> None:
    """Serve until there is nothing to do; what was sent before is there, on loopback."""
    while has_work(server, 0.05):
        server.serve()


class Wire:
    """What http.client takes for a socket."""

    def __init__(self, data: bytes) -> None:
        self.makefile = lambda mode: io.BytesIO(data)


def parsed(data: bytes, method: str = "GET") -> tuple[http.client.HTTPResponse, bytes]:
    """An answer, as the standard library's client understands it, and its body."""
    response = http.client.HTTPResponse(Wire(data), method=method)  # type: ignore[arg-type]
    response.begin()
    body = response.read()
    assert response.getheader("Connection") == "close"
    assert method == "HEAD" or response.getheader("Content-Length") == str(len(body))
    return response, body


def status_of(server: Server, request: bytes) -> int:
    with client_of(server, request) as client:
        return parsed(answer(server, client))[0].status


def hung_up(client: socket.socket) -> bool:
    """Whether the server has ended the connection without a word."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "request_",
    [
        GET,
        GET.replace(b"/metrics", b"/metrics?name=x"),
        GET.replace(b"\r\n", b"\n"),
        b"GET /metrics HTTP/1.0\r\n\r\n",
        GET.replace(b"\r\n\r\n", b"\r\nAccept: text/plain;version=0.0.4;q=0.5,*/*;q=0.1\r\n\r\n"),
        GET + b"what follows is not looked at",
    ],
)
def test_a_request_is_answered_with_the_page(server: Server, pages: Pages, request_: bytes) -> None:
    with client_of(server, request_) as client:
        response, body = parsed(answer(server, client))
    assert (response.status, body, pages.made) == (200, PAGE, 1)
    assert response.getheader("Content-Type") == CONTENT_TYPE


def test_the_page_is_made_anew_for_each_who_asks(server: Server, pages: Pages) -> None:
    for page in (b"one 1\n", b"two 2\n"):
        pages.page = page
        with client_of(server, GET) as client:
            assert parsed(answer(server, client))[1] == page


def test_the_page_is_made_once_for_those_who_ask_together(server: Server, pages: Pages) -> None:
    with client_of(server, GET) as one, client_of(server, GET) as other:
        bodies = [parsed(answer(server, client))[1] for client in (one, other)]
    assert (bodies, pages.made) == ([PAGE, PAGE], 1)


def test_ipv6(pages: Pages) -> None:
    with serving(pages, "::1") as server, client_of(server, GET, "::1") as client:
        assert parsed(answer(server, client))[1] == PAGE


def test_one_byte_at_a_time(server: Server, pages: Pages) -> None:
    with client_of(server) as client:
        for number in range(len(GET) - 1):
            client.sendall(GET[number : number + 1])
            assert has_work(server, PATIENCE_S)
            server.serve()
            assert not select.select([client], [], [], 0)[0]
        assert not pages.made
        client.sendall(GET[-1:])
        assert parsed(answer(server, client))[1] == PAGE


def test_head_has_no_body(server: Server) -> None:
    with client_of(server, HEAD) as client:
        data = answer(server, client)
    response, body = parsed(data, "HEAD")
    assert (response.status, body) == (200, b"")
    assert response.getheader("Content-Length") == str(len(PAGE))
    assert data.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("path", [b"/", b"/metrics/", b"/metric", b"/Metrics", b"*", b"metrics"])
def test_there_is_nothing_else(server: Server, pages: Pages, path: bytes) -> None:
    assert status_of(server, GET.replace(b"/metrics", path)) == 404
    assert not pages.made


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"OPTIONS", b"get", b"BREW"])
def test_other_methods_are_not_allowed(server: Server, pages: Pages, method: bytes) -> None:
    with client_of(server, GET.replace(b"GET", method) + b"and a body") as client:
        response, _ = parsed(answer(server, client))
    assert (response.status, response.getheader("Allow")) == (405, "GET, HEAD")
    assert not pages.made


@pytest.mark.parametrize(
    "request_",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"GET  /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /metrics HTTP/1.1 \r\nHost: x\r\n\r\n",
        b"GET /metrics HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET /metrics http/1.1\r\nHost: x\r\n\r\n",
        b"G(T /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n: no name\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n folded: line\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nName : space\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\0y\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\ry: z\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n",  # TLS
        bytes(range(256)) + b"\r\n\r\n",
        b"x" * REQUEST_BYTES,
        GET[:-2] + b"X: " + b"y" * REQUEST_BYTES + b"\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused(server: Server, pages: Pages, request_: bytes) -> None:
    assert status_of(server, request_) == 400
    assert not pages.made


def test_a_request_may_be_as_large_as_is_stated(server: Server) -> None:
    filler = b"X: " + b"y" * (REQUEST_BYTES - len(GET) - len(b"X: \r\n")) + b"\r\n"
    assert status_of(server, GET[:-2] + filler + b"\r\n") == 200
    assert status_of(server, GET[:-2] + b"y" + filler + b"\r\n") == 400


def test_a_request_that_ends_too_early_is_refused(server: Server) -> None:
    with client_of(server, GET[:-2]) as client:
        client.shutdown(socket.SHUT_WR)
        assert parsed(answer(server, client))[0].status == 400


def test_who_says_nothing_is_told_nothing(server: Server) -> None:
    with client_of(server) as client:
        client.shutdown(socket.SHUT_WR)
        assert answer(server, client) == b""


def test_a_refusal_reaches_who_is_still_sending(server: Server) -> None:
    with client_of(server, b"x" * REQUEST_BYTES) as client:
        serve_all(server)
        client.sendall(b"x" * (IGNORED_BYTES // 2))
        serve_all(server)
        client.shutdown(socket.SHUT_WR)
        assert parsed(answer(server, client))[0].status == 400


def send_and_serve(server: Server, client: socket.socket, size: int) -> None:
    """Send so many bytes, served meanwhile. Raises OSError if the server hangs up."""
    client.setblocking(False)
    while size > 0:
        try:
            size -= client.send(b"x" * REQUEST_BYTES)
        except BlockingIOError:
            assert has_work(server, PATIENCE_S)
        server.serve()


def test_who_never_stops_sending_is_cut_off(server: Server) -> None:
    gone = pytest.raises((ConnectionResetError, BrokenPipeError))
    with client_of(server, b"x" * REQUEST_BYTES) as client, gone:
        send_and_serve(server, client, 100 * IGNORED_BYTES)


def test_who_reads_late_gets_the_whole_page() -> None:
    with serving(Pages(HUGE_PAGE)) as server, client_of(server, GET) as client:
        serve_all(server)  # ends, although the page is not sent
        assert parsed(answer(server, client))[1] == HUGE_PAGE


def test_who_never_reads_holds_nobody_up() -> None:
    pages = Pages(HUGE_PAGE)
    with serving(pages) as server, client_of(server, GET) as idler:
        serve_all(server)
        pages.page = PAGE
        with client_of(server, GET) as other:
            assert parsed(answer(server, other))[1] == PAGE
        server.expire(time.monotonic() + DEADLINE_S)
        received = answer(server, idler)
        assert HUGE_PAGE.startswith(received.partition(b"\r\n\r\n")[2])
        assert 0 < len(received) < len(HUGE_PAGE)


def test_who_never_sends_is_dropped_in_the_end(server: Server) -> None:
    with client_of(server) as client:
        before = time.monotonic()
        serve_all(server)
        after = time.monotonic()
        server.expire(before + DEADLINE_S - 0.001)
        assert not select.select([client], [], [], 0)[0]
        server.expire(after + DEADLINE_S)
        assert hung_up(client)
    assert status_of(server, GET) == 200


def test_who_was_refused_and_stays_is_dropped_as_well(server: Server) -> None:
    with client_of(server, b"\r\n\r\n") as client:
        serve_all(server)
        server.expire(time.monotonic() + DEADLINE_S)
        assert parsed(answer(server, client))[0].status == 400


@contextmanager
def many(server: Server, count: int, data: bytes = b"") -> Iterator[list[socket.socket]]:
    clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(count)]
    try:
        for client in clients:
            client.settimeout(PATIENCE_S)
            client.sendall(data)
        yield clients
    finally:
        for client in clients:
            client.close()


def test_twenty_at_once(server: Server) -> None:
    with many(server, 20, GET) as clients:
        for client in clients:
            assert parsed(answer(server, client))[1] == PAGE


def test_the_oldest_makes_room(server: Server) -> None:
    with many(server, 20) as clients:
        serve_all(server)
        dropped, kept = clients[:-CONNECTIONS], clients[-CONNECTIONS:]
        assert all(hung_up(client) for client in dropped)
        for client in kept:
            client.sendall(GET)
            assert parsed(answer(server, client))[1] == PAGE


def test_who_is_gone_does_no_harm(server: Server) -> None:
    linger = struct.pack("ii", 1, 0)  # a reset
    with client_of(server, GET[:9]) as client:
        serve_all(server)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    with client_of(server, GET) as client:  # gone before it is accepted
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    serve_all(server)
    assert status_of(server, GET) == 200


def test_who_is_gone_in_the_middle_of_a_page_does_no_harm() -> None:
    pages = Pages(HUGE_PAGE)
    with serving(pages) as server:
        with client_of(server, GET) as client:
            serve_all(server)
            client.recv(1)
        serve_all(server)
        pages.page = PAGE
        assert status_of(server, GET) == 200


def test_without_descriptors_it_rests_until_the_loop_comes_by(server: Server) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with client_of(server, GET) as client:
        assert has_work(server, PATIENCE_S)
        resource.setrlimit(resource.RLIMIT_NOFILE, (_lowest_free(), hard))
        try:
            server.serve()
            assert not has_work(server)  # else the loop would do nothing but this
            server.expire(time.monotonic())
            assert not has_work(server)
            server.expire(server.due_s)
            assert has_work(server)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert parsed(answer(server, client))[1] == PAGE


def _lowest_free() -> int:
    descriptor = os.open("/", os.O_PATH)
    os.close(descriptor)
    return descriptor


def test_a_loop_that_watches_it_is_woken_by_a_client(server: Server) -> None:
    with select.epoll() as loop:
        loop.register(server.fileno(), select.EPOLLIN)
        assert loop.poll(0) == []
        with client_of(server, GET) as client:
            assert loop.poll(PATIENCE_S) == [(server.fileno(), select.EPOLLIN)]
            serve_all(server)
            assert loop.poll(0) == []
            assert parsed(client.recv(4096))[1] == PAGE


def test_nothing_stays_open(pages: Pages) -> None:
    before = len(os.listdir("/proc/self/fd"))
    server = Server(("127.0.0.1", 0), pages)
    with many(server, 3), many(server, 3, GET[:5]):
        serve_all(server)
        assert len(os.listdir("/proc/self/fd")) == before + 6 + 6 + 2
        server.close()
        assert len(os.listdir("/proc/self/fd")) == before + 6  # the clients' own
    assert len(os.listdir("/proc/self/fd")) == before


def test_nothing_is_inherited(server: Server) -> None:
    with many(server, 2) as clients:
        serve_all(server)
        theirs = {client.fileno() for client in clients}
        ours = {server.fileno(), *server._connections, server._listener.fileno()}
        assert len(ours) == 4
        assert not ours & theirs
        assert not any(os.get_inheritable(descriptor) for descriptor in ours)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_an_address_in_use_is_the_users_affair(pages: Pages, host: str) -> None:
    with serving(pages, host) as server, pytest.raises(UserError) as caught:
        Server((host, server.port), pages)
    assert re.fullmatch(r"cannot listen on \S+:\d+: Address already in use", str(caught.value))
    assert caught.value.exit_code == EXIT_FAILURE


def test_it_can_listen_again_right_after_it_ended(server: Server, pages: Pages) -> None:
    with client_of(server, GET) as client:
        answer(server, client)  # it hangs up first, and its side of the connection stays a while
    port = server.port
    server.close()
    Server(("127.0.0.1", port), pages).close()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9713", ("127.0.0.1", 9713)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("10.1.2.3:65535", ("10.1.2.3", 65535)),
        ("[::1]:9713", ("::1", 9713)),
        ("[::]:9713", ("::", 9713)),
    ],
)
def test_an_address_is_understood(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        *("", ":", ":9713", "0", "65536", "-1", "+1", " 9713", "9_7", "٣", "99999999999999999999"),
        *("127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.1:9713", "localhost:9713", "a\0b:1"),
        *("::1:9713", "[::1]", "[::1]:", "[::1]9713", "[127.0.0.1]:9713", "[::1:9713", "[]:1"),
        "http://127.0.0.1:9713",
    ],
)
def test_what_is_no_address_is_a_usage_error(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_address(text)
    assert caught.value.exit_code == EXIT_USAGE
    assert "\n" not in str(caught.value)
