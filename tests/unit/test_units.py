# SPDX-License-Identifier: Apache-2.0
"""What starts the watcher: systemd's unit, OpenRC's script, and the options they are given."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from balloontrace.cli import argparse_verbs, bundled
from balloontrace.cli.commands import watch
from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.tracers.machine import capabilities
from balloontrace.tracers.record import marks, session
from balloontrace.watch.server import parse_address

DEBIAN = Path(__file__).parents[2] / "debian"
UNIT = DEBIAN / "balloontrace-record.balloontrace-watch.service"
DEFAULTS = DEBIAN / "default/balloontrace-watch"
OPENRC = DEBIAN / "openrc/balloontrace-watch"

PROGRAM = "/usr/bin/balloontrace-record"
MOST_EXPOSED = 30
"""Tenths of what `systemd-analyze security` says."""


def settings() -> dict[str, list[str]]:
    """Name -> values of the unit's settings, in their order."""
    found = defaultdict(list)
    for line in UNIT.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[name].append(value)
    return found


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, of a program that is installed on this machine."""
    path = tmp_path / "balloontrace-watch.service"
    path.write_text(UNIT.read_text().replace(f"={PROGRAM} ", "=/bin/true "))
    return path


def analyzed(*words: str) -> str:
    """What systemd-analyze says, which is content."""
    command = ["systemd-analyze", *words]
    clean = {**os.environ, "SYSTEMD_COLORS": "0", "SYSTEMD_PAGER": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_systemd_has_nothing_to_complain_of(unit: Path) -> None:
    assert analyzed("verify", "--man=no", str(unit)) == ""


def test_systemd_complains_of_what_it_does_not_know(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("LockPersonality", "LokPersonality"))
    assert "LokPersonality" in analyzed("verify", "--man=no", str(unit))


def test_it_is_not_exposed(unit: Path) -> None:
    limit = f"--threshold={MOST_EXPOSED}"
    assert "exposure level" in analyzed("security", "--offline=yes", limit, str(unit))


def given_to_watch(line: str) -> dict[str, object]:
    """What `watch` is told by the command line of a service. Raises UserError."""
    program, name, *arguments = shlex.split(line)
    verb = bundled.verb_of(name)
    assert (program, verb) == (PROGRAM, watch.VERB)
    return vars(argparse_verbs.parser_of(verb, program).parse_args(arguments))


def check(given: dict[str, object]) -> None:
    """Read what the parser leaves to `watch`. Raises UserError."""
    watch.parse_keep(str(given["keep"]))
    watch.parse_on(str(given["on"]))
    if given["listen"] != watch.NOWHERE:
        parse_address(str(given["listen"]))


EXAMPLES = re.findall(r'^#OPTIONS="(.*)"$', DEFAULTS.read_text(), re.M)


def openrc_line(options: str) -> str:
    """The command line that OpenRC makes of the script, by a shell."""
    code = '. "$1"; echo "$command $command_args"'
    done = subprocess.run(
        ["sh", "-euc", code, "sh", str(OPENRC)],
        env={"OPTIONS": options}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize("options", ["", *EXAMPLES])
def test_the_services_run_a_command_that_there_is(options: str) -> None:
    (line,) = settings()["ExecStart"]
    by_systemd = given_to_watch(line.replace("$OPTIONS", options))
    check(by_systemd)
    assert given_to_watch(openrc_line(options)) == by_systemd


def test_wrong_options_are_not_tried_again() -> None:
    (line,) = settings()["ExecStart"]
    with pytest.raises(UserError) as refused:
        given_to_watch(line.replace("$OPTIONS", "--lisen none"))
    assert (
        settings()["RestartPreventExitStatus"]
        == [str(EXIT_USAGE)]
        == [str(refused.value.exit_code)]
    )


def test_nothing_is_set_before_somebody_sets_it() -> None:
    assert EXAMPLES
    assert all(line.startswith("#") for line in DEFAULTS.read_text().splitlines() if line)


def test_it_may_write_where_it_does() -> None:
    unit = settings()
    assert [f"/var/lib/{name}" for name in unit["StateDirectory"]] == [watch.DIRECTORY]
    assert [f"/run/{name}" for name in unit["RuntimeDirectory"]] == [marks.DIRECTORY]
    places = [path.removeprefix("-") for path in unit["ReadWritePaths"]]
    named = [given_to_watch(f"{PROGRAM} watch {each}")["textfile"] for each in EXAMPLES]
    assert places == [path for path in named if path]


def test_it_has_the_privileges_of_a_recorder() -> None:
    (given,) = settings()["CapabilityBoundingSet"]
    others = ("sys_admin", "sys_resource")
    needed = [f"CAP_{name.upper()}" for name in (*capabilities.RECORD, *others)]
    assert given.split() == needed


def test_it_is_the_last_victim_from_the_start() -> None:
    """Without CAP_SYS_RESOURCE it cannot become that, but it may be so already."""
    assert settings()["OOMScoreAdjust"] == [str(session.LAST_VICTIM)]
    assert settings()["LimitMEMLOCK"] == ["infinity"]


CALLS = (
    *("accept4", "bind", "bpf", "capset", "clone", "clone3", "close", "connect", "dup3"),
    *("epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "execve", "exit_group"),
    *("fadvise64", "fallocate", "fchmod", "fcntl", "fdatasync", "fstat", "fstatfs", "ftruncate"),
    *("futex", "getdents64", "getrandom", "ioctl", "kill", "listen", "lseek", "madvise"),
    *("memfd_create", "mkdir", "mkdirat", "mknod", "mknodat", "mlockall", "mmap", "mprotect"),
    *("mremap", "munmap", "newfstatat", "openat", "perf_event_open", "pipe2", "poll", "ppoll"),
    *("prctl", "pread64", "prlimit64", "pselect6", "pwrite64", "read", "readlink", "recvmsg"),
    *("rename", "renameat", "rseq", "rt_sigaction", "rt_sigprocmask", "select", "sendfile"),
    *("sendmsg", "sendto", "shutdown", "socket", "socketpair", "statfs", "statx", "sysinfo"),
    *("uname", "unlink", "unlinkat", "wait4", "write", "writev"),
)
"""Of a watcher, its loader and Python, by strace and by what the code does."""


def members(name: str) -> set[str]:
    """System calls of a group of systemd's."""
    if not name.startswith("@"):
        return {name}
    listed = re.findall(r"^    (\S+)$", analyzed("syscall-filter", name), re.M)
    return set().union(*(members(each) for each in listed if each != name))


def test_its_system_calls_are_allowed() -> None:
    allowed: set[str] = set()
    for line in settings()["SystemCallFilter"]:
        named = set().union(*(members(name) for name in line.lstrip("~").split()))
        allowed = allowed - named if line.startswith("~") else allowed | named
    assert set(CALLS) - allowed == set()
    assert not allowed & {"init_module", "mount", "ptrace", "reboot", "setuid", "chown"}


def test_a_shell_takes_the_script_of_openrc() -> None:
    subprocess.run(["sh", "-n", OPENRC], check=True)
    assert OPENRC.read_text().startswith("#!/sbin/openrc-run\n")
