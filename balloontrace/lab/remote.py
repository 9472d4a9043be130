# SPDX-License-Identifier: Apache-2.0
"""A guest as one object, whoever runs it: commands over SSH, and the host's hand on its balloon."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import signal
import subprocess
import tarfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self, cast

import balloontrace
from balloontrace import bundle
from balloontrace.errors import UserError
from balloontrace.host.qmp import Qmp
from balloontrace.lab.balloon import Balloon
from balloontrace.lab.directory import own_directory
from balloontrace.lab.host import require_tools, tool
from balloontrace.lab.qemu import GuestConfig

Command = str | Sequence[str]

COMMAND_TIMEOUT_S = 120.0
LOGIN_ATTEMPTS = 20
LOGIN_RETRY_S = 0.5

_SSH_FAILED = 255
TREE = "/opt/balloontrace"
"""Where the package is in a guest, after install_balloontrace."""
_COMMAND = "/usr/local/bin/balloontrace"


class GuestDied(UserError):
    """The guest's kernel panicked or its QEMU ended."""


class GuestHung(UserError):
    """The guest did not answer in time."""


@dataclass(frozen=True)
class Address:
    """Where a guest's sshd lets root in with which private key."""

    host: str
    port: int
    key: Path


class RemoteGuest(ABC):
    """A guest with a balloon; a context manager, within which it runs and can be used."""

    def __init__(self, config: GuestConfig) -> None:
        self.config = config
        self.boot_s = 0.0
        """Seconds from the start of its machine to the first possible command."""

    def __enter__(self) -> Self:
        require_tools(("ssh",))
        self.directory, self._alive = own_directory()
        self._address: Address | None = None
        started = time.monotonic()
        try:
            self._come_up()
        except BaseException:
            self._end()
            raise
        self.boot_s = time.monotonic() - started
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _come_up(self) -> None:
        """Start the guest and log in. Raises UserError."""
        self._address = self._start()
        self._open_ssh()

    @property
    @abstractmethod
    def monitor(self) -> Qmp:
        """QEMU's monitor."""

    @abstractmethod
    def host_pid(self) -> int:
        """Return QEMU's process on the host, 0 if the guest is not running."""

    @abstractmethod
    def _start(self) -> Address:
        """Bring the guest up. Raises UserError."""

    @abstractmethod
    def _stop(self) -> None:
        """Undo what _start has done so far."""

    @abstractmethod
    def _trouble(self) -> str:
        """Say why the guest is lost (panic, failed boot, QEMU ended), or nothing."""

    @abstractmethod
    def last_lines(self) -> list[str]:
        """Return the last lines of its console."""

    @property
    def balloon(self) -> Balloon:
        """The host's side of the balloon."""
        return Balloon(self.monitor, self.config.memory_bytes)

    def lost(self) -> GuestDied | None:
        """Return an error if the guest is lost, with its last console lines, else None."""
        trouble = self._trouble()
        return GuestDied(f"the guest died: {trouble}", self._console_hint()) if trouble else None

    def hung(self, what: str) -> GuestHung:
        """Return the error for a guest that did not do something in time."""
        return GuestHung(f"the guest hangs: {what}", self._console_hint())

    def _open_ssh(self) -> None:
        """Log in once; every later command travels through this connection.

        QEMU's user network may reset a connection that comes while the guest's is being set up.
        """
        for _ in range(LOGIN_ATTEMPTS - 1):
            if not self._log_in():
                return
            if lost := self.lost():
                raise lost
            time.sleep(LOGIN_RETRY_S)
        if complaint := self._log_in():
            raise self.lost() or UserError(f"cannot log in to the guest: {complaint}")

    def _log_in(self) -> str:
        """Try to make the connection; returns ssh's complaint, or ''."""
        argv = [*self._ssh_argv(), "-M", "-N", "-f"]
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                timeout=COMMAND_TIMEOUT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise self.hung("no answer from its sshd") from None
        return done.stderr.strip() or f"status {done.returncode}" if done.returncode else ""

    def run(
        self,
        command: Command,
        *,
        check: bool = True,
        timeout_s: float = COMMAND_TIMEOUT_S,
        input: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command (a string goes to the shell) and return it with its text output.

        Raises UserError if check is set and it fails, GuestDied, or GuestHung after timeout_s.
        """
        done = self._ssh(command, timeout_s, (input or "").encode(), subprocess.PIPE)
        result = subprocess.CompletedProcess(
            _shell_text(command), done.returncode, done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
        )  # fmt: skip
        if check and result.returncode != 0:
            raise _failure(result.args, result.returncode, result.stderr)
        return result

    def popen(
        self,
        command: Command,
        *,
        stdin: int | IO[bytes] | None = subprocess.DEVNULL,
        stderr: int | IO[bytes] | None = subprocess.PIPE,
    ) -> RemoteProcess:
        """Start a command that goes on; its stdout is a pipe. A string must be one simple command.

        Raises GuestDied or UserError if it cannot be started.
        """
        return RemoteProcess(self, self._ssh_argv(), command, stdin, stderr)

    def kill(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to a process of the guest. Raises UserError if there is none."""
        self.run(["kill", f"-{number.value}", str(pid)])

    def fetch(self, remote: str, local: Path) -> None:
        """Copy a file out of the guest; local is complete or absent. Raises UserError."""
        partial = local.with_name(f"{local.name}.part")
        with partial.open("wb") as file:
            done = self._ssh(["cat", remote], COMMAND_TIMEOUT_S, b"", file)
        if done.returncode != 0:
            raise _failure(f"cat {remote}", done.returncode, done.stderr.decode(errors="replace"))
        partial.replace(local)

    def install_balloontrace(self) -> None:
        """Install this very package in the guest, for its ``balloontrace`` command.

        Where the userspace is not the kernel's own, that is the one file of `balloontrace bundle`.
        Of a tree, what would be in that file is byte-compiled. Raises UserError if that fails.
        """
        if self.config.userspace:
            self.push(bundle.made(), f"cat > {_COMMAND} && chmod 755 {_COMMAND}")
            return
        modules = [name for name in bundle.contents() if _is_own_source(name)]
        compiled = shlex.join(["python3", "-m", "compileall", "-q", *modules])
        self.push(_packed_tree(), f"mkdir -p {TREE} && cd {TREE} && tar -x && {compiled}")

    def push(self, data: bytes, unpack: str) -> None:
        """Give `data` to a shell command in the guest. Raises UserError if that fails."""
        done = self._ssh(unpack, COMMAND_TIMEOUT_S, data, None)
        if done.returncode != 0:
            raise _failure(unpack, done.returncode, done.stderr.decode(errors="replace"))

    def vmstat(self) -> dict[str, int]:
        """Return the counters of /proc/vmstat."""
        lines = self.run("cat /proc/vmstat").stdout.splitlines()
        return {name: int(value) for name, value in (line.split() for line in lines)}

    def monotonic_ns(self) -> int:
        """Return the guest's CLOCK_MONOTONIC."""
        return int(self.run(["python3", "-c", "import time; print(time.monotonic_ns())"]).stdout)

    def shell(self) -> int:
        """Give the terminal to a shell in the guest; return its exit status."""
        return subprocess.run([*self._ssh_argv(), "-t"], check=False).returncode

    def _ssh_argv(self) -> list[str]:
        if self._address is None:
            raise RuntimeError("the guest is not running")
        options = {
            "BatchMode": "yes",
            "ControlMaster": "no",
            "ControlPath": str(self.directory / "ssh"),
            "IdentitiesOnly": "yes",
            "LogLevel": "ERROR",
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": "/dev/null",
        }
        words = [f"-o{name}={value}" for name, value in options.items()]
        where = ["-p", str(self._address.port), f"root@{self._address.host}"]
        return [tool("ssh"), "-F", "none", *words, "-i", str(self._address.key), *where]

    def _ssh(
        self, command: Command, timeout_s: float, data: bytes, stdout: int | IO[bytes] | None
    ) -> subprocess.CompletedProcess[bytes]:
        text = _shell_text(command)
        try:
            done = subprocess.run(
                [*self._ssh_argv(), text], input=data, stdout=stdout, stderr=subprocess.PIPE,
                timeout=timeout_s, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise self.lost() or self.hung(f"`{text}` took over {timeout_s:.0f} s") from None
        if done.returncode == _SSH_FAILED:
            lost = self.lost()
            if lost:
                raise lost
        return done

    def _console_hint(self) -> str:
        return "last console lines: " + " | ".join(self.last_lines())

    def _close_ssh(self) -> None:
        subprocess.run(
            [*self._ssh_argv(), "-O", "exit"], check=False,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def _end(self) -> None:
        if self._address is not None:
            self._close_ssh()
        try:
            self._stop()
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)
            os.close(self._alive)


class RemoteProcess:
    """A command that runs on in the guest.

    pid is its process in the guest; stdout and stderr are byte streams here.
    """

    def __init__(
        self,
        guest: RemoteGuest,
        ssh_argv: Sequence[str],
        command: Command,
        stdin: int | IO[bytes] | None,
        stderr: int | IO[bytes] | None,
    ) -> None:
        self._guest = guest
        self._text = _shell_text(command)
        # Unbuffered: the first line is read here, the rest belongs to the caller.
        self._process = subprocess.Popen(
            [*ssh_argv, f"echo $$; exec {self._text}"],
            stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, bufsize=0,
        )  # fmt: skip
        self.stdout = cast(IO[bytes], self._process.stdout)
        first = self.stdout.readline()
        if not first:
            self._process.wait()
            raise guest.lost() or UserError(f"cannot start `{self._text}` in the guest")
        self.pid = int(first)

    @property
    def stdin(self) -> IO[bytes]:
        """The stream to the command. Raises ValueError unless popen was told to make one."""
        if self._process.stdin is None:
            raise ValueError("the command was started without a stdin")
        return self._process.stdin

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        return self._process.poll()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process in the guest. Raises UserError if it has ended."""
        self._guest.kill(self.pid, number)

    def kill_group(self) -> None:
        """Kill the process and its children (each command has a session of its own)."""
        self._guest.run(["kill", "-KILL", "--", f"-{self.pid}"])
        self.communicate()

    def communicate(self, timeout_s: float = COMMAND_TIMEOUT_S) -> tuple[int, str, str]:
        """Wait for the end and return (exit status, remaining stdout, stderr).

        Raises GuestDied, or GuestHung after timeout_s.
        """
        try:
            out, err = self._process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise self._guest.lost() or self._guest.hung(f"`{self._text}` goes on") from None
        status = self._process.returncode
        if status == _SSH_FAILED:
            lost = self._guest.lost()
            if lost:
                raise lost
        return status, (out or b"").decode(errors="replace"), (err or b"").decode(errors="replace")


def _shell_text(command: Command) -> str:
    return command if isinstance(command, str) else shlex.join(command)


def _failure(command: str, status: int, stderr: str) -> UserError:
    lines = stderr.strip().splitlines()
    return UserError(
        f"in the guest, `{command}` failed with status {status}", lines[-1] if lines else ""
    )


def _is_own_source(name: str) -> bool:
    """Whether it is a file of this tree: a folder's __init__.py is made for the zip alone."""
    is_ours = name.startswith(f"{balloontrace.__name__}/") and name.endswith(".py")
    return is_ours and Path(balloontrace.__file__).parents[1].joinpath(name).is_file()


def _packed_tree() -> bytes:
    """Return the package as a tar archive, without caches."""
    package = Path(balloontrace.__file__).parent

    def wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if entry.name.endswith("__pycache__"):
            return None
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        return entry

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(package, package.name, filter=wanted)
    return buffer.getvalue()
