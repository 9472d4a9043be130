# SPDX-License-Identifier: Apache-2.0
"""`balloontrace host record --libvirt` on a real domain that has no more than firmware."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from balloontrace.recording.host_lines import (
    ACTUAL,
    END,
    MEMORY,
    STATE,
    STATISTICS,
    TARGET,
    VCPUS,
    HostLines,
    read_host,
)
from tests.vagrant.test_vagrant import PRIVATE, ROOT

pytestmark = pytest.mark.xdist_group("vagrant")

MIB = 1 << 20

DOMAIN = """
<domain type='qemu'>
  <name>seen</name>
  <memory unit='MiB'>256</memory>
  <vcpu>2</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <features><acpi/></features>
  <devices><memballoon model='virtio'><stats period='3'/></memballoon></devices>
</domain>
"""

SCRIPT = """
set -eu
virsh create {folder}/domain.xml
cat /run/libvirt/qemu/seen.pid > {folder}/pid
record() {{ {python} -m balloontrace host record --libvirt "$@" --interval 50ms; }}

record seen --poll-stats 5 -d 1s -o {folder}/first.host.jsonl
virsh dumpxml seen > {folder}/after.xml

record seen -o {folder}/second.host.jsonl &
until grep -q actual {folder}/second.host.jsonl 2>/dev/null; do sleep 0.1; done
virsh suspend seen
until grep -q paused {folder}/second.host.jsonl; do sleep 0.1; done
virsh destroy seen
wait $!

record seen -o {folder}/third.host.jsonl 2> {folder}/refused && exit 1 || true
record --all -o {folder}/third.host.jsonl 2>> {folder}/refused && exit 1 || true
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the script left: it runs beside a libvirt of its own."""
    folder = tmp_path_factory.mktemp("libvirt")
    (folder / "domain.xml").write_text(DOMAIN)
    script = textwrap.dedent(SCRIPT).format(folder=folder, python=sys.executable)
    done = subprocess.run(
        [PRIVATE, "sh", "-c", script],
        capture_output=True, text=True, check=False, timeout=300, stdin=subprocess.DEVNULL,
        cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return folder


def view(folder: Path, name: str) -> HostLines:
    found = read_host(str(folder / f"{name}.host.jsonl"))
    assert found.damage == 0
    return found


def test_what_libvirt_tells(folder: Path) -> None:
    first = view(folder, "first")
    begin = first.begin
    assert (begin["hypervisor"], begin["memory_bytes"]) == ("libvirt", 256 * MIB)
    assert begin["pid"] == int((folder / "pid").read_text())
    assert {ACTUAL, STATISTICS, MEMORY, VCPUS, STATE} <= set(begin["tells"])
    assert not first.tells(TARGET)
    assert {line["bytes"] for line in first.of(ACTUAL)} == {0}
    assert {line["threads"] for line in first.of(VCPUS)} == {2}
    assert first.of(MEMORY)[0]["rss_bytes"] > 10 * MIB
    told = first.of(STATISTICS)[0]
    assert told["polling_interval_s"] == 5
    assert "age_s" not in told  # there is no driver
    assert first.of(END)[0]["reason"] == "duration"


def test_the_interval_is_put_back(folder: Path) -> None:
    assert "<stats period='3'/>" in (folder / "after.xml").read_text()


def test_a_domain_that_is_paused_and_destroyed(folder: Path) -> None:
    states = [line["state"] for line in view(folder, "second").of(STATE)]
    # A domain that is destroyed may be seen on its way.
    assert [state for state in states if state != "shutdown"] == ["running", "paused", "gone"]


def test_a_domain_that_is_not_there_is_one_line(folder: Path) -> None:
    said = (folder / "refused").read_text().splitlines()
    assert len(said) == 2
    assert "failed to get domain 'seen'" in said[0]
    assert "failed to get domain '--all'" in said[1]
    assert not (folder / "third.host.jsonl").exists()
