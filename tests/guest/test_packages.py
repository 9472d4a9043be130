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


UNIT = "balloontrace-watch.service"


def test_the_watcher_s_unit_is_there(built: dict[str, Path]) -> None:
    files = {name.removeprefix("/usr") for name in content(built[RECORDER])}
    assert f"/lib/systemd/system/{UNIT}" in files
    assert content(built[RECORDER]) >= {
        "/etc/default/balloontrace-watch",
        f"/usr/share/doc/{RECORDER}/examples/balloontrace-watch",
    }


HELPER = """#!/bin/sh
case $1 in --quiet) shift;; esac
case $1,$BEFORE in
debian-installed,new | was-enabled,disabled) exit 1 ;;
enable,*) echo "helper $*" >> "$CALLS" ;;
esac
"""
"""For deb-systemd-helper, to which a unit that is new was enabled."""

SYSTEMCTL = """#!/bin/sh
case $*,$BEFORE in
*is-enabled*,enabled) echo enabled ;;
*is-enabled*) echo disabled ;;
*is-active*,enabled) ;;
*is-active*) exit 3 ;;
*daemon-reload*) ;;
*) echo "systemctl $*" >> "$CALLS" ;;
esac
"""


def asked_of_systemd(package: Path, words: list[str], before: str, where: Path) -> list[str]:
    """What a maintainer script changes, where the unit was new, disabled, or enabled and ran."""
    subprocess.run(["dpkg-deb", "-e", package, where / "control"], check=True)
    script, *arguments = words
    code = (where / "control" / script).read_text()
    assert "/run/systemd/system" in code
    stubs = {"deb-systemd-helper": HELPER, "systemctl": SYSTEMCTL}
    stubs |= dict.fromkeys(("py3compile", "py3clean"), "#!/bin/sh\n")
    invoke = Path("/usr/bin/deb-systemd-invoke").read_text()
    stubs["deb-systemd-invoke"] = invoke.replace("/usr/sbin/policy-rc.d", "/no/policy")
    for name, text in stubs.items():
        (where / name).write_text(text)
        (where / name).chmod(0o755)
    code = code.replace("/run/systemd/system", str(where))
    calls = where / "calls"
    calls.touch()
    environment = {"PATH": f"{where}:/usr/bin:/bin", "CALLS": str(calls)}
    environment["BEFORE"] = before
    subprocess.run(["sh", "-c", code, script, *arguments], env=environment, check=True)
    return calls.read_text().splitlines()


@pytest.mark.parametrize(
    ("words", "before", "asked"),
    [
        (["postinst", "configure", ""], "new", []),
        (["postinst", "configure", "0.0.1"], "new", []),
        (["postinst", "configure", "0.0.1"], "disabled", []),
        (["postinst", "configure", "0.0.1"], "enabled", ["helper enable", "restart"]),
        (["prerm", "remove"], "enabled", ["stop"]),
    ],
)
def test_nothing_is_started_but_what_ran_before(
    built: dict[str, Path], words: list[str], before: str, asked: list[str], tmp_path: Path
) -> None:
    found = asked_of_systemd(built[RECORDER], words, before, tmp_path)
    assert len(found) == len(asked)
    for line, what in zip(found, asked, strict=True):
        assert what in line
        assert UNIT in line


def test_both_can_be_installed(built: dict[str, Path]) -> None:
    assert content(built[RECORDER]) & content(built[ANALYSES]) == set()
