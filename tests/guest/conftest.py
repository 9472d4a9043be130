# SPDX-License-Identifier: Apache-2.0
"""Real guests for the tests. A guest that cannot be had is an error, never a skip."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from balloontrace.analysis.json import report_json
from balloontrace.analysis.report import build
from balloontrace.errors import UserError
from balloontrace.lab import boots
from balloontrace.lab.guest import Guest
from balloontrace.lab.image import ensure_image, ensure_userspace
from balloontrace.lab.kernels import find_kernel, load_kernels
from balloontrace.lab.loads import MEMORY_BYTES
from balloontrace.lab.qemu import ACCEL_VARIABLE, GuestConfig, choose_accel
from balloontrace.lab.record import start_recorder
from balloontrace.lab.userspaces import load_userspaces
from balloontrace.recording.reader import Recording, read_recording
from tests.guest.guests import Guests

REMOTE = "/root/test.btrace"

ONE_KERNEL = "6.1"
"""Where tests run that do not depend on the kernel, unless --kernel names others."""

_DIED = "guest died"
_BOOTS = pytest.StashKey[Path]()
"""The file of all boots, in the process that sums up."""
_GUESTS = pytest.StashKey[Guests]()
"""All guests of this process, once a test wanted one."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """--kernel K, repeatable: only these kernels of the lab, where CI takes all."""
    parser.addoption("--kernel", action="append", choices=list(load_kernels()))


def pytest_configure(config: pytest.Config) -> None:
    """Count boots in one file, whichever process boots: workers, and what they run; one thread
    emulates all CPUs of a guest."""
    config.addinivalue_line("markers", "one_kernel: does not depend on the kernel")
    config.addinivalue_line(
        "markers", "oldest_and_newest: what changed has changed between these two kernels"
    )
    config.addinivalue_line("markers", "own_guests: shares none, and can run beside its neighbours")
    config.addinivalue_line("markers", "micro: also on a kernel without modules and kprobes")
    # Emulated CPUs with a thread each now and then run a breakpoint of the kernel's that is gone
    # already, and the guest dies (docs/lab.md). Beside other guests one thread is no slower.
    if choose_accel() == "tcg":
        os.environ[ACCEL_VARIABLE] = "tcg-single"
    if not hasattr(config, "workerinput"):
        descriptor, path = tempfile.mkstemp(prefix="balloontrace-boots-")
        os.close(descriptor)
        config.stash[_BOOTS] = Path(path)
        os.environ[boots.FILE_VARIABLE] = path


def pytest_sessionstart(session: pytest.Session) -> None:
    """Build images while tests of other kernels run; a test that needs one waits for it."""
    config = session.config
    if not hasattr(config, "workerinput") and not config.option.collectonly:
        kernels = list(config.getoption("--kernel") or load_kernels())
        # Workers begin at the other end; what must be compiled takes longest, and is wanted last.
        kernels.reverse()
        kernels.sort(key=_is_compiled)
        threading.Thread(target=_build_images, args=(kernels,), daemon=True).start()
        threading.Thread(target=_build_userspaces, daemon=True).start()


def _is_compiled(kernel: str) -> bool:
    return bool(find_kernel(kernel).config)


def _build_images(kernels: list[str]) -> None:
    for kernel in kernels:
        with contextlib.suppress(UserError):  # who needs it will be told
            ensure_image(find_kernel(kernel), print)


def _build_userspaces() -> None:
    for userspace in load_userspaces().values():
        with contextlib.suppress(UserError):
            ensure_userspace(userspace, print)


def pytest_unconfigure(config: pytest.Config) -> None:
    """The file of boots goes."""
    if path := config.stash.get(_BOOTS, None):
        path.unlink(missing_ok=True)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test in a guest runs on every kernel, unless it is marked; one kernel after the other."""
    if "kernel" in metafunc.fixturenames:
        kernels = metafunc.config.getoption("--kernel") or list(load_kernels())
        if metafunc.definition.get_closest_marker("one_kernel"):
            kernels = [ONE_KERNEL if ONE_KERNEL in kernels else kernels[0]]
        elif metafunc.definition.get_closest_marker("oldest_and_newest"):
            packaged = [kernel for kernel in kernels if not _is_compiled(kernel)]
            kernels = [kernel for kernel in kernels if kernel not in packaged[1:-1]]
        metafunc.parametrize("kernel", kernels, scope="session")


@pytest.hookimpl(tryfirst=True)  # xdist looks for the groups in the same hook
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Kernels can run side by side; the tests of one kernel share guests, so they stay together.

    Most tests load drivers, or cross-check with kprobes: not on a kernel that has neither.
    """
    elsewhere = []
    for item in items:
        if item.path.parent == Path(__file__).parent:
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            kernel = parameters.get("kernel", "")
            if not item.get_closest_marker("own_guests"):
                item.add_marker(pytest.mark.xdist_group(kernel or item.path.stem))
            if kernel and _is_compiled(kernel) and not item.get_closest_marker("micro"):
                elsewhere.append(item)
    config.hook.pytest_deselected(items=elsewhere)
    items[:] = [item for item in items if item not in elsewhere]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """The guests of the test before are not this one's."""
    if guests := item.config.stash.get(_GUESTS, None):
        guests.begin_test()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure is reported with the last words of the test's guests, which nobody gets again.

    The guests may have failed in what prepares them: then the test has not got them as arguments.
    """
    report = yield
    guests = item.config.stash.get(_GUESTS, None)
    if report.failed and guests:
        for kernel, said in guests.spoil():
            report.sections.append((f"console of the {kernel} guest", said))
        report.user_properties += [(_DIED, said) for said in guests.died()]
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many guests were booted, which the emulator killed, and in which test one died."""
    booted = boots.read(terminalreporter.config.stash[_BOOTS])
    if not booted:
        return
    terminalreporter.section("guests")
    for line in boots.summary(booted):
        terminalreporter.line(line)
    for report in (r for kind in ("failed", "error") for r in terminalreporter.getreports(kind)):
        for what, said in report.user_properties:
            if what == _DIED:
                terminalreporter.line(f"  died in {report.nodeid}: {said}")


@pytest.fixture(scope="session")
def all_guests(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Guests]:
    """All guests of this process, until its end."""
    shared = request.config.stash[_GUESTS] = Guests(tmp_path_factory.mktemp("guests"))
    yield shared
    shared.end()


@pytest.fixture
def guests(all_guests: Guests) -> Iterator[Guests]:
    """What lends guests to one test. A guest that died without anybody's notice is an error."""
    yield all_guests
    assert all_guests.died_unnoticed() == []
    all_guests.pause()


@pytest.fixture
def stock(kernel: str, guests: Guests) -> Guest:
    """A guest with the kernel's own driver and all it offers, for tests that do not harm it."""
    config = GuestConfig(kernel, memory_bytes=MEMORY_BYTES, hinting=True, reporting=True)
    return guests.get(config)


@pytest.fixture
def shrinker(kernel: str, guests: Guests) -> Guest:
    """A guest whose driver deflates from a shrinker, as in 4.19 to 5.6."""
    return guests.get(GuestConfig(kernel, driver="shrinker", memory_bytes=MEMORY_BYTES))


class Recorder:
    """`balloontrace record` running in a guest, attached."""

    def __init__(self, guest: Guest, *arguments: str, path: str = REMOTE) -> None:
        self.guest = guest
        self.path = path
        self.process, attached = start_recorder(guest, path, *arguments)
        if not attached:
            pytest.fail(f"the recorder did not start: {self.process.communicate()}")

    def await_state(self, state: str) -> None:
        """Wait until the recording says so of the driver: what it holds is readable at any time."""
        # The guest has no reader: what tells of the driver are whole samples, which need none.
        script = (
            "import json, time, zlib\n"
            "from balloontrace.recording import layout\n"
            "states = []\n"
            f"while states[-1:] != [{state!r}]:\n"
            "    time.sleep(0.05)\n"
            f"    data = open({self.path!r}, 'rb').read()\n"
            "    states, at = [], len(layout.MAGIC)\n"
            "    while at + layout.FRAME.size <= len(data):\n"
            "        frame = layout.FRAME.unpack_from(data, at)\n"
            "        at += layout.FRAME.size + frame[5]\n"
            "        if frame[1] == layout.SAMPLE and at <= len(data):\n"
            "            sample = json.loads(zlib.decompress(data[at - frame[5] : at]))\n"
            "            states += [sample['driver']['state']] if 'driver' in sample else []\n"
        )
        self.guest.run(["env", "PYTHONPATH=/opt/balloontrace", "python3", "-c", script])

    def stop(self, number: signal.Signals = signal.SIGINT) -> tuple[int, str, str]:
        """End it by a signal; returns (status, stdout, stderr)."""
        self.process.send_signal(number)
        return self.process.communicate()


@pytest.fixture
def fetch(tmp_path: Path) -> Callable[..., Recording]:
    """Brings a recording out of a guest and reads it."""

    def _fetch(guest: Guest, path: str = REMOTE) -> Recording:
        local = tmp_path / Path(path).name
        guest.fetch(path, local)
        return read_recording(str(local))

    return _fetch


def report_of(recording: Recording) -> dict[str, Any]:
    """What `balloontrace report --json` says of a recording, whose events are those that the BPF
    programs summed up, whatever was done to them."""
    report: dict[str, Any] = json.loads(report_json(build(recording.path)))
    # A segment of `watch` that ends in a storm of events may have none.
    summed = recording.trailer is not None and recording.trailer.get("sums") is not None
    assert report["reconciliation"]["sums_differing"] == []
    assert report["reconciliation"]["sums_agree"] is (True if summed else None)
    return report


def balloon_counters(guest: Guest) -> tuple[int, int]:
    """(balloon_inflate, balloon_deflate) of the guest's /proc/vmstat."""
    vmstat = guest.vmstat()
    return vmstat["balloon_inflate"], vmstat["balloon_deflate"]
