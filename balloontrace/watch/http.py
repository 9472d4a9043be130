# SPDX-License-Identifier: Apache-2.0
"""What is answered to a request for metrics: bytes in, bytes out."""

from __future__ import annotations

from balloontrace.watch.exposition import CONTENT_TYPE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

PATH = b"/metrics"

OK = 200
BAD_REQUEST = 400
_NOT_FOUND = 404
_METHOD_NOT_ALLOWED = 405

_REASONS = {
    OK: "OK",
    BAD_REQUEST: "Bad Request",
    _NOT_FOUND: "Not Found",
    _METHOD_NOT_ALLOWED: "Method Not Allowed",
}

_LETTERS = b"abcdefghijklmnopqrstuvwxyz"
_TOKEN = _LETTERS + _LETTERS.upper() + b"0123456789!#$%&'*+-.^_`|~"
"""What methods and names of fields are made of (RFC 9110, 5.6.2)."""


class Response:
    """An answer, as it goes over the wire."""

    __slots__ = ("data", "status")

    def __init__(self, status: int, body: bytes, with_body: bool = True) -> None:
        head = [
            f"HTTP/1.1 {status} {_REASONS[status]}",
            f"Content-Type: {CONTENT_TYPE if status == OK else 'text/plain; charset=utf-8'}",
            f"Content-Length: {len(body)}",
            "Connection: close",
            *(["Allow: GET, HEAD"] if status == _METHOD_NOT_ALLOWED else []),
        ]
        self.status = status
        self.data = "\r\n".join([*head, "", ""]).encode("ascii") + (body if with_body else b"")


def head_of(received: bytes) -> bytes | None:
    """The request line and the header, if they are complete: up to the first empty line.

    Lines may end without a carriage return (RFC 9112, 2.2).
    """
    text = received.replace(b"\r\n", b"\n")
    head, end, _ = text.partition(b"\n\n")
    return head if end else None


def respond(head: bytes, page: Callable[[], bytes]) -> Response:
    """The answer to a request. head: of `head_of`; page: makes the metrics if they are wanted."""
    request = _request(head)
    if not request:
        return refusal()
    method, target = request
    with_body = method != b"HEAD"
    if target.partition(b"?")[0] != PATH:
        return Response(_NOT_FOUND, b"there is /metrics, and nothing else\n", with_body)
    if method not in (b"GET", b"HEAD"):
        return Response(_METHOD_NOT_ALLOWED, b"GET or HEAD\n")
    return Response(OK, page(), with_body)


def refusal() -> Response:
    """The answer to what is no request, or is too large."""
    return Response(BAD_REQUEST, b"this is no request that is understood here\n")


def _request(head: bytes) -> tuple[bytes, bytes] | None:
    """Method and target; None if there is anything wrong with the request."""
    first, *fields = head.split(b"\n")
    words = first.split(b" ")
    if len(words) != 3 or words[2] not in (b"HTTP/1.0", b"HTTP/1.1"):
        return None
    method, target, version = words
    names = [_name(field) for field in fields]
    hosts = names.count(b"host")
    if not _is_token(method) or not target or not _is_printable(head) or None in names:
        return None
    if hosts > 1 or (version == b"HTTP/1.1" and not hosts):  # RFC 9112, 3.2
        return None
    return method, target


def _name(field: bytes) -> bytes | None:
    name, colon, _ = field.partition(b":")
    return name.lower() if colon and _is_token(name) else None


def _is_token(word: bytes) -> bool:
    return bool(word) and not word.strip(_TOKEN)


def _is_printable(head: bytes) -> bool:
    return all(byte >= 0x20 or byte in b"\t\n" for byte in head) and b"\x7f" not in head
