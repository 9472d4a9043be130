# SPDX-License-Identifier: Apache-2.0
"""JSON over HTTP on a Unix socket: how Firecracker and cloud-hypervisor are asked."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

from balloontrace.errors import UserError

_TIMEOUT_S = 10.0
_MOST_BYTES = 1 << 20
"""Of an answer."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Refused(UserError):
    """The answer was an error of the API's own. status: of HTTP."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Api:
    """An API on a Unix socket; each request is a connection of its own, as it may be restarted."""

    def __init__(self, path: str) -> None:
        self.path = path

    def get(self, resource: str) -> dict[str, Any]:
        """What a resource is. Raises Refused, or UserError if nobody answers."""
        return self._ask("GET", resource, None)

    def patch(self, resource: str, content: dict[str, Any]) -> None:
        """Change a resource. Raises as `get`."""
        self._ask("PATCH", resource, json.dumps(content))

    def _ask(self, method: str, resource: str, content: str | None) -> dict[str, Any]:
        connection = _Connection(self.path)
        headers = {"Accept": "application/json"}
        if content is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, resource, content, headers)
            answer = connection.getresponse()
            said = answer.read(_MOST_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise UserError(f"no answer at {self.path}: {error}") from None
        finally:
            connection.close()
        told = _object(said)
        if answer.status >= 300:
            why = told.get("fault_message") or answer.reason
            raise Refused(f"{method} {resource} was refused: {why}", answer.status)
        return told


def _object(said: bytes) -> dict[str, Any]:
    try:
        told = json.loads(said) if said else {}
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}
