"""Real guests for the tests. A guest that cannot be had is an error, never a skip."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from balloontrace.lab.guest import Guest
from balloontrace.lab.image import ensure_image
from balloontrace.lab.kernels import find_kernel, load_kernels
from balloontrace.lab.loads import MEMORY_BYTES
from balloontrace.lab.qemu import GuestConfig
from balloontrace.lab.record import start_recorder
from balloontrace.recording import Recording, read_recording

REMOTE = "/root/test.btrace"


def pytest_addoption(parser: pytest.Parser) -> None:
    """--kernel K, repeatable: only these kernels of the lab, where CI takes all."""
    parser.addoption("--kernel", action="append", choices=list(load_kernels()))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every test in a guest runs on every kernel; one kernel after the other."""
    if "kernel" in metafunc.fixturenames:
        kernels = metafunc.config.getoption("--kernel") or list(load_kernels())
        metafunc.parametrize("kernel", kernels, scope="session")


@pytest.hookimpl(tryfirst=True)  # xdist looks for the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Kernels can run side by side; the tests of one kernel share guests, so they stay together."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            item.add_marker(pytest.mark.xdist_group(parameters.get("kernel", item.path.stem)))


def _boot(config: GuestConfig, console: Path) -> Guest:
    return Guest(ensure_image(find_kernel(config.kernel), print), config, console)


@pytest.fixture(scope="session")
def stock(kernel: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A guest with the kernel's own driver and all it offers, for tests that do not harm it."""
    config = GuestConfig(kernel, memory_bytes=MEMORY_BYTES, hinting=True, reporting=True)
    with _boot(config, tmp_path_factory.mktemp("stock") / "console.log") as guest:
        guest.push_tree()
        yield guest


@pytest.fixture(scope="session")
def shrinker(kernel: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A guest whose driver deflates from a shrinker, as in 4.19 to 5.6."""
    config = GuestConfig(kernel, driver="shrinker", memory_bytes=MEMORY_BYTES)
    with _boot(config, tmp_path_factory.mktemp("shrinker") / "console.log") as guest:
        guest.push_tree()
        yield guest


class Recorder:
    """`balloontrace record` running in a guest, attached."""

    def __init__(self, guest: Guest, *arguments: str, path: str = REMOTE) -> None:
        self.guest = guest
        self.path = path
        self.process, attached = start_recorder(guest, path, *arguments)
        if not attached:
            pytest.fail(f"the recorder did not start: {self.process.communicate()}")

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
    """What `balloontrace report --json` says of a recording, as a user would run it."""
    command = [sys.executable, "-m", "balloontrace", "report", "--json", recording.path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def balloon_counters(guest: Guest) -> tuple[int, int]:
    """(balloon_inflate, balloon_deflate) of the guest's /proc/vmstat."""
    vmstat = guest.vmstat()
    return vmstat["balloon_inflate"], vmstat["balloon_deflate"]
