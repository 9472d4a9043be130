# SPDX-License-Identifier: Apache-2.0
"""`balloontrace host record` on the command line."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from balloontrace.errors import EXIT_UNSUPPORTED, EXIT_USAGE, UserError
from balloontrace.recording.host_lines import ACTUAL, CLOCK, END, read_host
from tests.unit.command_line import balloontrace
from tests.unit.host.api_server import serving
from tests.unit.host.test_cloud_hypervisor import API


def record(*arguments: str | Path) -> None:
    balloontrace("host", "record", *arguments)


def usage_error(*arguments: str | Path) -> str:
    with pytest.raises(UserError) as told:
        record(*arguments)
    assert told.value.exit_code == EXIT_USAGE
    return str(told.value)


def test_one_guest_is_named(tmp_path: Path) -> None:
    assert "--qmp, --libvirt, --firecracker, --cloud-hypervisor" in usage_error()
    assert "by one of" in usage_error("--qmp", tmp_path, "--libvirt", "x")


@pytest.mark.parametrize(
    "options",
    [
        ("--interval", "1ms"),
        ("--interval", "2m"),
        ("--interval", "often"),
        ("-d", "0s"),
        ("--poll-stats", "0"),
        ("--pid", "999999999"),
        ("--pid", "0"),
    ],
)
def test_options_that_make_no_sense(options: tuple[str, str]) -> None:
    assert options[0] in usage_error("--qmp", "x", *options)


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot connect to .*: No such file"):
        record("--qmp", tmp_path / "none", "-o", tmp_path / "out")
    with pytest.raises(UserError, match="no answer at"):
        record("--firecracker", tmp_path / "none", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "balloontrace.host.qmp", None)
    monkeypatch.setitem(sys.modules, "balloontrace.host.qemu", None)
    with pytest.raises(UserError, match=r"pip install 'balloontrace\[host\]'") as told:
        record("--qmp", tmp_path / "none")
    assert told.value.exit_code == EXIT_UNSUPPORTED


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "api"


def resources() -> dict[str, Any]:
    return {**API, "/api/v1/vmm.ping": {"version": "48", "pid": os.getpid()}}


def test_a_recording(socket: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run.host.jsonl"
    with serving(socket, resources()):
        record("--cloud-hypervisor", socket, "-d", "500ms", "--interval", "50ms", "-o", out)
        view = read_host(str(out))
        assert len(view.of(ACTUAL)) > 1
        assert view.of(END)[0]["reason"] == "duration"
        assert f"duration; wrote {out}" in capfd.readouterr().err
        assert out.stat().st_mode & 0o777 == 0o600
        with pytest.raises(UserError, match="exists"):
            record("--cloud-hypervisor", socket, "-d", "1s", "-o", out)
        record("--cloud-hypervisor", socket, "-d", "1ms", "-o", out, "-f")
    assert len(read_host(str(out)).of(ACTUAL)) < len(view.of(ACTUAL))


def test_what_did_not_begin_leaves_nothing(socket: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.host.jsonl"
    unsupported = pytest.raises(UserError, match="does not ask its guests")
    with serving(socket, resources()), unsupported:
        record("--cloud-hypervisor", socket, "--poll-stats", "1", "-o", out)
    assert not out.exists()


def start(socket: Path, *options: str, stdout: int) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "balloontrace", "host", "record", *options]
    argv += ["--cloud-hypervisor", str(socket)]
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, stdout=stdout, stderr=pipe, start_new_session=True)


def test_sigterm_ends_a_stream_in_order(socket: Path, tmp_path: Path) -> None:
    with contextlib.ExitStack() as around:
        around.enter_context(serving(socket, resources()))
        process = around.enter_context(start(socket, "-o", "-", stdout=subprocess.PIPE))
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(10)]
        process.send_signal(signal.SIGTERM)
        rest, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert b"Traceback" not in said
    stream = tmp_path / "stream"
    stream.write_bytes(b"".join(lines) + rest)
    assert read_host(str(stream)).of(END)[0]["reason"] == "terminated"


SSH = """#!/bin/sh
for last; do :; done
exec sh -c "$last"
"""


def test_ctrl_c_is_not_for_ssh(
    socket: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh = tmp_path / "bin" / "ssh"
    ssh.parent.mkdir()
    ssh.write_text(SSH)
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ssh.parent}:{os.environ['PATH']}")
    out = tmp_path / "run.host.jsonl"
    with contextlib.ExitStack() as around:
        around.enter_context(serving(socket, resources()))
        process = around.enter_context(start(socket, "-o", str(out), "--ssh", "guest", stdout=1))
        assert process.stderr
        assert b"Ctrl-C ends it" in process.stderr.readline()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        process.communicate(timeout=20)
    assert process.returncode == 0
    view = read_host(str(out))
    assert view.of(END)[0]["reason"] == "interrupted"
    assert len(view.of(CLOCK)) == 2  # at the begin, and at the end


def test_a_reader_that_goes_away_is_the_end(socket: Path) -> None:
    with contextlib.ExitStack() as around:
        around.enter_context(serving(socket, resources()))
        often = start(socket, "-o", "-", "--interval", "50ms", stdout=subprocess.PIPE)
        process = around.enter_context(often)
        assert process.stdout
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr
        said = process.stderr.read()
        assert process.wait(20) == 1
    assert b"Traceback" not in said


def test_a_full_disk_is_one_line(socket: Path) -> None:
    with serving(socket, resources()), Path("/dev/full").open("wb") as full:
        process = start(socket, "-o", "-", stdout=full.fileno())
        _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert b"cannot write -: No space left on device" in said
    assert b"Traceback" not in said


def test_a_process_that_is_not_known_is_said(
    socket: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(socket, {**API, "/api/v1/vmm.ping": {"version": "48"}}):
        record("--cloud-hypervisor", socket, "-d", "1ms", "-o", tmp_path / "out")
    assert "--pid" in capfd.readouterr().err
