# SPDX-License-Identifier: Apache-2.0
"""A small HTTP server on a Unix socket, in place of a hypervisor."""

from __future__ import annotations

import contextlib
import http.server
import json
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Answers:
    """What it answers, by resource: an object, or (status, object). asked: what came in."""

    def __init__(self, resources: dict[str, Any]) -> None:
        self.resources = resources
        self.asked: list[tuple[str, str, Any]] = []


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    answers: Answers

    def handle_error(self, request: object, client_address: object) -> None:
        """Who asked has gone: that may be the test."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.answers.asked.append(("GET", self.path, None))
        told = self.server.answers.resources.get(self.path, (404, {"fault_message": "not there"}))
        status, content = told if isinstance(told, tuple) else (200, told)
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_PATCH(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.answers.asked.append(("PATCH", self.path, content))
        self.send_response(204)
        self.end_headers()

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def serving(path: Path, resources: dict[str, Any]) -> Iterator[Answers]:
    """Such a server at that path."""
    with _Server(str(path), _Handler) as server:
        server.answers = Answers(resources)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server.answers
        finally:
            server.shutdown()
            thread.join()
