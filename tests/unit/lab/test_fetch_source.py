# SPDX-License-Identifier: Apache-2.0
"""The driver's source is that of the image, though Debian has published a newer one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

FETCH = Path(__file__).parents[3] / "balloontrace" / "lab" / "drivers" / "fetch-source"


@pytest.mark.parametrize(
    ("there", "asked"),
    [(True, ["linux-source-6.1=6.1.192-2"]),
     (False, ["linux-source-6.1=6.1.192-2", "linux-source-6.1"])],
)  # fmt: skip
def test_the_version_of_the_headers_is_asked_for_first(
    tmp_path: Path, there: bool, asked: list[str]
) -> None:
    log = tmp_path / "log"
    stubs = {
        "apt-cache": "echo 'Version: 6.1.192-2'",
        "apt-get": f'for last; do :; done; echo "$last" >> {log}; '
        + ("exit 0" if there else 'case "$last" in *=*) exit 100 ;; esac'),
        "dpkg-deb": "exit 1",  # what follows is not of interest here
    }
    for name, script in stubs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    subprocess.run(
        ["sh", FETCH, tmp_path / "root", "linux-source-6.1", "linux-headers-cloud-amd64"],
        env={**os.environ, "PATH": f"{tmp_path}:/usr/bin:/bin", "MMDEBSTRAP_APT_CONFIG": "x"},
        check=False, capture_output=True,
    )  # fmt: skip
    assert log.read_text().split() == asked
