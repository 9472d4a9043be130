"""Real guests for the tests. A guest that cannot be had is an error, never a skip."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from balloontrace.lab.guest import Guest, RemoteProcess
from balloontrace.lab.image import ensure_image
from balloontrace.lab.kernels import find_kernel
from balloontrace.lab.qemu import GuestConfig
from balloontrace.recording import Recording, read_recording

MIB_PAGES = 256
REMOTE = "/root/test.btrace"
READY = "/run/balloontrace-test.ready"
SETTLE_S = 60.0


def _boot(config: GuestConfig, console: Path) -> Guest:
    return Guest(ensure_image(find_kernel(config.kernel), print), config, console)


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A guest of 1 GiB with the kernel's own driver, for every test that does not harm it."""
    with _boot(GuestConfig(), tmp_path_factory.mktemp("stock") / "console.log") as guest:
        guest.push_tree()
        yield guest


@pytest.fixture(scope="module")
def shrinker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A guest of 1 GiB whose driver deflates from a shrinker, as in 4.19 to 5.6."""
    config = GuestConfig(driver="shrinker")
    with _boot(config, tmp_path_factory.mktemp("shrinker") / "console.log") as guest:
        guest.push_tree()
        yield guest


class Recorder:
    """`balloontrace record` running in a guest, attached."""

    def __init__(self, guest: Guest, *arguments: str, path: str = REMOTE) -> None:
        self.guest = guest
        self.path = path
        ready = f"{READY}.{path.replace('/', '_')}"
        guest.run(["rm", "-f", ready, path])
        self.process: RemoteProcess = guest.popen(
            ["balloontrace", "record", "-o", path, "--ready-file", ready, *arguments]
        )
        wait = f"until [ -e {ready} ]; do kill -0 {self.process.pid} || exit 1; sleep 0.1; done"
        if guest.run(wait, check=False).returncode:
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


def move_balloon(guest: Guest, pages: int) -> None:
    """Set the balloon's size through QMP and wait until QEMU reports it as reached.

    The worker reports a size after its last page has moved, so the counters are final then.
    """
    balloon = guest.balloon
    balloon.set_target_pages(pages)
    deadline = time.monotonic() + SETTLE_S
    while balloon.actual_pages() != pages:
        if time.monotonic() > deadline:
            pytest.fail(f"the balloon is at {balloon.actual_pages()} pages, not at {pages}")
        time.sleep(0.05)


def balloon_counters(guest: Guest) -> tuple[int, int]:
    """(balloon_inflate, balloon_deflate) of the guest's /proc/vmstat."""
    vmstat = guest.vmstat()
    return vmstat["balloon_inflate"], vmstat["balloon_deflate"]
