# SPDX-License-Identifier: Apache-2.0
"""libvirt, by a program in place of virsh that says what virsh 9.0 said (tests/vagrant has the
real one)."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from pathlib import Path

import pytest

from balloontrace.errors import UserError
from balloontrace.host.libvirt import Libvirt

KIB = 1024

XML = """<domain type='kvm' id='3'>
  <name>seen</name>
  <memory unit='KiB'>524288</memory>
  <devices>
    <memballoon model='virtio'>
      <stats period='3'/>
    </memballoon>
  </devices>
</domain>
"""

STATS = """Domain: 'seen'
  state.state=1
  state.reason=1
  balloon.current=393216
  balloon.maximum=524288
  balloon.swap_in=0
  balloon.major_fault=190
  balloon.unused=1000
  balloon.hugetlb_pgalloc=3
  balloon.last-update={at}
  balloon.rss=48620

"""

VIRSH = """#!/bin/sh
echo "$LC_ALL $@" >> {log}
case "$*" in
*dumpxml*) cat {folder}/xml ;;
*domstats*) cat {folder}/stats ;;
*version*) echo 'Using library: libvirt 9.0.0' ;;
*dommemstat*) ;;
*) echo 'error: unknown command' >&2; exit 1 ;;
esac
"""


class Virsh:
    """What it says, and what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.xml, self.stats, self.log = folder / "xml", folder / "stats", folder / "log"
        self.xml.write_text(XML)
        self.stats.write_text(STATS.format(at=0))
        self.program = folder / "virsh"
        self.program.write_text(VIRSH.format(log=self.log, folder=folder))
        self.program.chmod(0o755)

    def asked(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def virsh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Virsh:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return Virsh(tmp_path)


def test_the_process_is_that_of_the_domain(
    virsh: Virsh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of the same name may run here while virsh asks another machine."""
    uuid = "c7a5fdbd-edaf-9455-926a-d65c16db1809"
    virsh.xml.write_text(XML.replace("<name>", f"<uuid>{uuid}</uuid><name>"))
    monkeypatch.setattr("balloontrace.host.libvirt._PID_FILES", tmp_path)
    with subprocess.Popen(["sh", "-c", "read line", "-uuid", uuid], stdin=subprocess.PIPE) as ours:
        for pid, known in ((os.getpid(), False), (ours.pid, True)):
            (tmp_path / "seen.pid").write_text(f"{pid}\n")
            assert Libvirt("seen", None).facts.pid == (pid if known else None)
        ours.communicate()


def test_facts(virsh: Virsh) -> None:
    facts = Libvirt("seen", 7).facts
    assert (facts.hypervisor, facts.version, facts.pid) == ("libvirt", "9.0.0", 7)
    assert facts.memory_bytes == 524288 * KIB


def test_kib_that_are_left_become_bytes_inside(virsh: Virsh) -> None:
    told = Libvirt("seen", 7).read(statistics=True)
    assert told.actual_bytes == (524288 - 393216) * KIB
    assert told.target_bytes is None  # libvirt does not tell it
    assert told.state == "running"
    assert told.statistics
    assert told.statistics.values == {
        "swap_in": 0,
        "major_fault": 190,
        "unused": 1000 * KIB,
        "hugetlb_pgalloc": 3,
    }
    assert told.statistics.age_s is None
    assert told.statistics.polling_interval_s == 3


def test_the_age_of_statistics(virsh: Virsh) -> None:
    virsh.stats.write_text(STATS.format(at=int(time.time()) - 40))
    told = Libvirt("seen", 7).read(statistics=True).statistics
    assert told
    assert told.age_s == pytest.approx(40, abs=5)


def test_it_only_reads_in_english_and_a_name_is_no_option(virsh: Virsh) -> None:
    Libvirt("--all", 7).read(statistics=True)
    for line in virsh.asked():
        assert line.startswith("C --readonly ")
        assert "--all" not in line.replace("--domain=--all", "").split()


def test_the_interval_is_put_back(virsh: Virsh) -> None:
    source = Libvirt("seen", 7)
    with contextlib.suppress(KeyboardInterrupt), source.polling(5):
        told = source.read(statistics=True).statistics
        assert told
        assert told.polling_interval_s == 5
        raise KeyboardInterrupt
    sets = [line.split("--period ")[1] for line in virsh.asked() if "--period" in line]
    assert sets == ["5 --live", "3 --live"]


@pytest.mark.parametrize(("state", "word"), [(5, "shutoff"), (6, "crashed")])
def test_a_domain_that_has_ended_is_gone(virsh: Virsh, state: int, word: str) -> None:
    source = Libvirt("seen", 7)
    virsh.stats.write_text(STATS.format(at=0).replace("state.state=1", f"state.state={state}"))
    with pytest.raises(UserError, match=f"the domain is {word}"):
        source.read(statistics=False)


@pytest.mark.parametrize("model", ["<memballoon model='none'/>", ""])
def test_a_domain_without_a_balloon(virsh: Virsh, model: str) -> None:
    virsh.xml.write_text(f"<domain><memory>4</memory><devices>{model}</devices></domain>")
    with pytest.raises(UserError, match="has no balloon"):
        Libvirt("seen", 7)


@pytest.mark.parametrize("said", ["", "<domain", "<domain/>", "\x00\xff"])
def test_a_description_that_is_none(virsh: Virsh, said: str) -> None:
    virsh.xml.write_text(said, encoding="latin-1")
    with pytest.raises(UserError):
        Libvirt("seen", 7)


@pytest.mark.parametrize(
    "said",
    [
        "",
        "  balloon.current=" + "9" * 5000,
        "  balloon.current=-1",
        "  balloon.current=\u0661",
        "  state.state=99\n  balloon.current=",
    ],
    ids=range(5),
)
def test_numbers_that_are_none(virsh: Virsh, said: str) -> None:
    source = Libvirt("seen", 7)
    virsh.stats.write_text(said + "\n", encoding="utf-8")
    assert source.read(statistics=True).actual_bytes is None


def test_what_is_not_told_at_once_is_not_known(virsh: Virsh) -> None:
    source = Libvirt("seen", 7)
    virsh.stats.write_text("Domain: 'seen'\n\n")  # libvirt is busy with it
    told = source.read(statistics=False)
    assert told.state is None
    assert told.actual_bytes is None


def test_virsh_s_words(virsh: Virsh) -> None:
    virsh.program.write_text("#!/bin/sh\necho 'error: failed to get domain' >&2\nexit 1\n")
    with pytest.raises(UserError, match=r"^virsh dumpxml failed: failed to get domain$"):
        Libvirt("seen", 7)


def test_without_virsh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="virsh is not installed"):
        Libvirt("seen", 7)
