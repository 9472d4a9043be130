# SPDX-License-Identifier: Apache-2.0
"""The Debian packages: in a guest, apt takes the recorder's in, it records, and goes for good."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from balloontrace import __version__
from balloontrace.lab.guest import Guest
from balloontrace.lab.loads import MEMORY_BYTES
from balloontrace.lab.qemu import GuestConfig
from balloontrace.recording.reader import Recording
from tests.guest.conftest import report_of
from tests.guest.guests import Guests
from tools import packages

RECORDER, ANALYSES = packages.NAMES

Fetch = Callable[..., Recording]

APT = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--yes"]

APTS_OWN = ("/var/cache/*", "/var/lib/apt/*", "/var/lib/dpkg/*", "/var/log/*")

INSTALLED = ["find", "/etc", "/opt", "/usr", "/var", "-xdev"]
INSTALLED += [word for path in APTS_OWN for word in ("!", "-path", path)]
"""Lists all files but those of apt, dpkg and debconf."""


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name -> file of the packages, as `make deb` makes them: lintian finds no error."""
    made = packages.build(tmp_path_factory.mktemp("packages"))
    return {path.name.partition("_")[0]: path for path in made}


def records_and_goes(guest: Guest, package: Path, fetch: Fetch) -> None:
    """Install it with apt, which has no lists of packages there, record, and remove it."""
    before = guest.run(INSTALLED).stdout.splitlines()
    guest.push(package.read_bytes(), f"cat > /root/{package.name}")
    guest.run([*APT, "install", f"/root/{package.name}"])
    assert guest.run([RECORDER, "--version"]).stdout == f"balloontrace {__version__}\n"

    doctor = json.loads(guest.run([RECORDER, "doctor", "--json"]).stdout)
    assert doctor["works"] is True, doctor
    assert {name: tool["ok"] for name, tool in doctor["tools"].items()} == dict.fromkeys(
        ("python", "bcc", "pyroute2"), True
    )
    guest.run([RECORDER, "record", "-f", "-o", "/root/package.btrace", "--", "true"])
    recording = fetch(guest, "/root/package.btrace")
    assert recording.header["code"] == "shipped"
    report = report_of(recording)
    assert report["complete"] is True
    assert report["lost_events"] == 0

    guest.run([*APT, "purge", RECORDER])
    left = guest.run(INSTALLED).stdout.splitlines()
    assert sorted(set(left) - set(before)) == []


@pytest.mark.one_kernel
def test_it_records_in_debian_12(stock: Guest, built: dict[str, Path], fetch: Fetch) -> None:
    records_and_goes(stock, built[RECORDER], fetch)


def test_it_records_in_debian_13(guests: Guests, built: dict[str, Path], fetch: Fetch) -> None:
    config = GuestConfig("6.12", memory_bytes=MEMORY_BYTES)
    records_and_goes(guests.get(config), built[RECORDER], fetch)


@pytest.mark.one_kernel
def test_it_records_in_debian_11(
    kernel: str, guests: Guests, built: dict[str, Path], fetch: Fetch
) -> None:
    config = GuestConfig(kernel, userspace="debian-11", memory_bytes=MEMORY_BYTES)
    records_and_goes(guests.get(config), built[RECORDER], fetch)


def content(package: Path) -> set[str]:
    """The files in it."""
    listed = ["dpkg-deb", "--fsys-tarfile", str(package)]
    with subprocess.Popen(listed, stdout=subprocess.PIPE) as tar:
        names = subprocess.run(
            ["tar", "-t"], stdin=tar.stdout, capture_output=True, text=True, check=True
        ).stdout
    return {name.removeprefix(".") for name in names.splitlines() if not name.endswith("/")}


def test_manual_and_completions_are_where_they_are_looked_for(built: dict[str, Path]) -> None:
    for name in packages.NAMES:
        assert content(built[name]) >= {
            f"/usr/bin/{name}",
            f"/usr/share/man/man1/{name}.1.gz",
            f"/usr/share/bash-completion/completions/{name}",
            f"/usr/share/fish/vendor_completions.d/{name}.fish",
            f"/usr/share/zsh/vendor-completions/_{name}",
        }


def test_both_can_be_installed(built: dict[str, Path]) -> None:
    assert content(built[RECORDER]) & content(built[ANALYSES]) == set()
