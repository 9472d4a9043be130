# SPDX-License-Identifier: Apache-2.0
"""What is said when a build step fails. The logs are apt's and mmdebstrap's own words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from balloontrace.errors import UserError
from balloontrace.lab.diagnosis import step_error
from balloontrace.lab.kernels import Kernel, find_kernel

TABLES = """\
["6.1"]
suite = "bookworm"
sources = ["deb http://deb.debian.org/debian bookworm main"]
image = "linux-image-cloud-amd64"
headers = "linux-headers-cloud-amd64"
source = "linux-source-6.1"

["7.9"]
suite = "nosuch"
sources = [
    "deb http://deb.debian.org/debian forky main",
    "deb http://deb.debian.org/debian nosuch main",
    "deb http://deb.debian.org/debian-security bullseye-security main",
]
image = "linux-image-5.10.0-99-cloud-amd64"
headers = "linux-headers-cloud-amd64=5.10.1-1"
source = "linux-source-7.9"
builder_suite = "bookworm"
builder_sources = ["deb http://deb.debian.org/nodebian bookworm main"]
"""

NO_SUITE = """\
Ign:1 http://deb.debian.org/debian nosuch InRelease
Err:2 http://deb.debian.org/debian nosuch Release
  404  Not Found [IP: 203.0.113.80 80]
Reading package lists...
E: The repository 'http://deb.debian.org/debian nosuch Release' does not have a Release file.
E: apt-get update --error-on=any -oAPT::Status-Fd=<$fd> -oDpkg::Use-Pty=false failed
"""
NO_ARCHIVE = """\
E: Failed to fetch http://deb.debian.org/nodebian/dists/bookworm/InRelease  400  Bad Request
E: The repository 'http://deb.debian.org/nodebian bookworm InRelease' is not signed.
"""
EXPIRED = """\
Reading package lists...
E: Release file for http://deb.debian.org/debian/dists/forky/InRelease is expired \
(invalid since 16d 19h 18min 1s). Updates for this repository will not be applied.
E: apt-get update --error-on=any -oAPT::Status-Fd=<$fd> -oDpkg::Use-Pty=false failed
"""
NO_PACKAGE = """\
E: Unable to locate package linux-image-5.10.0-99-cloud-amd64
E: Couldn't find any package by glob 'linux-image-5.10.0-99-cloud-amd64'
E: Couldn't find any package by regex 'linux-image-5.10.0-99-cloud-amd64'
"""
NO_VERSION = "E: Version '5.10.1-1' for 'linux-headers-cloud-amd64' was not found\n"
NO_SOURCE = """\
E: Unable to locate package linux-source-7.9
E: Couldn't find any package by glob 'linux-source-7.9'
E: setup failed: E: command failed: sh fetch-source "$1"
"""
# The lists name it, its file has gone.
NO_FILE = """\
Get:89 http://deb.debian.org/debian-security bullseye-security/main amd64 \
linux-image-5.10.0-46-cloud-amd64 amd64 5.10.262-1 [21.5 MB]
Err:90 http://deb.debian.org/debian-security bullseye-security/main amd64 \
linux-image-cloud-amd64 amd64 5.10.262-1
  404  Not Found [IP: 203.0.113.80 80]
Get:91 http://deb.debian.org/debian bookworm/main amd64 python3-bpfcc all 0.26.0+ds-1 [44.1 kB]
E: Failed to fetch http://deb.debian.org/debian-security/pool/updates/main/l/linux-signed-amd64/\
linux-image-cloud-amd64_5.10.262-1_amd64.deb  404  Not Found [IP: 203.0.113.80 80]
"""


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "kernels.toml"
    path.write_text(TABLES)
    monkeypatch.setattr(Kernel, "FILE", path)


def failed(tmp_path: Path, log: str, kernel: str = "7.9") -> UserError:
    path = tmp_path / "failed-7.9-rootfs.log"
    path.write_text(log)
    error = step_error(path, find_kernel(kernel))
    assert "in step rootfs: " in error.message
    assert "\n" not in str(error)
    return error


@pytest.mark.parametrize(
    ("log", "entry"),
    [
        (NO_SUITE, '    "deb http://deb.debian.org/debian nosuch main",'),
        (NO_ARCHIVE, 'builder_sources = ["deb http://deb.debian.org/nodebian bookworm main"]'),
        (EXPIRED, '    "deb http://deb.debian.org/debian forky main",'),
        (NO_PACKAGE, 'image = "linux-image-5.10.0-99-cloud-amd64"'),
        (NO_VERSION, 'headers = "linux-headers-cloud-amd64=5.10.1-1"'),
        (NO_SOURCE, 'source = "linux-source-7.9"'),
        (NO_FILE, '    "deb http://deb.debian.org/debian-security bullseye-security main",'),
        ("E: Unable to locate package pahole\n", '["7.9"]'),
        ("E: headers are not of the guest's kernel 7.9.0\n", TABLES.splitlines()[15]),
    ],
)
def test_the_line_to_correct_is_named(tmp_path: Path, log: str, entry: str) -> None:
    hint = failed(tmp_path, log).hint
    place = re.search(rf"{tmp_path}/kernels\.toml line (\d+)$", hint)
    assert place, hint
    assert TABLES.splitlines()[int(place[1]) - 1] == entry


def test_a_lost_file_of_a_named_package_points_at_its_name(tmp_path: Path) -> None:
    assert failed(tmp_path, NO_FILE, "6.1").hint.endswith("kernels.toml line 4")


def test_a_package_of_every_guest_can_be_left_out(tmp_path: Path) -> None:
    hint = failed(tmp_path, "E: Unable to locate package pahole\n").hint
    assert hint.startswith("add 'pahole' to `without` of the table at ")


def test_a_lagging_mirror_is_told_from_a_missing_suite(tmp_path: Path) -> None:
    assert "[check-valid-until=no]" in failed(tmp_path, EXPIRED).hint


@pytest.mark.parametrize(
    ("log", "hint"),
    [
        (
            "Err:1 http://x bookworm InRelease\nE: Failed to fetch "
            "http://x/dists/bookworm/InRelease  Could not resolve 'x'\n",
            "is the network up",
        ),
        ("cp: error writing: No space left on device\n", "free some disk space"),
        (
            "Get:5 http://x bookworm/main amd64 libnss-resolve\nE: mmdebstrap failed to run\n",
            "see ",
        ),
        ("", "see "),
    ],
)
def test_what_is_not_the_tables_fault_does_not_point_there(
    tmp_path: Path, log: str, hint: str
) -> None:
    assert failed(tmp_path, log).hint.startswith(hint)
