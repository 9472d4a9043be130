# SPDX-License-Identifier: Apache-2.0
"""What an image's build does when a mirror fails. A real apt-get asks a server of the test's."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from balloontrace.errors import UserError
from balloontrace.lab import debian
from balloontrace.lab.kernels import find_kernel

CONTENT = {
    "/./Release": b"Origin: test\n",
    "/./Packages": b"Package: x\nVersion: 1\nArchitecture: all\nFilename: x.deb\nSize: 1\n",
}


@contextmanager
def mirror(
    is_down: Callable[[], bool], content: dict[str, bytes]
) -> Iterator[tuple[str, list[str]]]:
    """A mirror's address, and what it was asked for. It answers 503 while it is down."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            asked.append(self.path)
            body = content.get(self.path, b"")
            status = 503 if is_down() else 200 if body else 404
            said = body if status == 200 else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def download(address: str, directory: Path, said: list[str]) -> Path:
    """Make a tree with apt-get from the mirror; returns the tree. Raises UserError."""
    tree = directory / "root"
    (directory / "sources.list").write_text(f"deb [trusted=yes] {address} ./\n")
    options = {
        "APT::Sandbox::User": "",
        "APT::Update::Error-Mode": "any",
        "Acquire::http::Proxy": "false",
        "Dir::Cache": str(directory / "cache"),
        "Dir::Etc::SourceList": str(directory / "sources.list"),
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State": str(directory),
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    command = f"{shlex.join(['apt-get', *words, 'update'])} && mkdir {tree}"
    log = directory / "work" / "rootfs.log"
    log.parent.mkdir()
    debian.download(find_kernel("6.1"), ["sh", "-c", command], tree, log, said.append)
    return tree


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "PAUSES_S", (0.0, 0.0))


def test_a_mirror_that_fails_for_a_moment_is_asked_again(tmp_path: Path) -> None:
    said: list[str] = []
    with mirror(lambda: not said, CONTENT) as (address, _):  # until that is said
        assert download(address, tmp_path, said).is_dir()
    assert said == ["6.1: the mirror fails, asking it again in 0 s"]


def test_a_mirror_that_goes_on_failing_is_given_up(tmp_path: Path) -> None:
    said: list[str] = []
    with (
        mirror(lambda: True, CONTENT) as (address, _),
        pytest.raises(UserError, match=r"building the image of 6\.1 failed in step rootfs: .* 503"),
    ):
        download(address, tmp_path, said)
    assert len(said) == len(debian.PAUSES_S)


def test_what_is_not_there_is_asked_for_once(tmp_path: Path) -> None:
    with (
        mirror(lambda: False, {}) as (address, asked),
        pytest.raises(UserError, match=r"building the image of 6\.1 failed in step rootfs"),
    ):
        download(address, tmp_path, [])
    assert asked.count("/./Release") == 1
