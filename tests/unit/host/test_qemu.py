# SPDX-License-Identifier: Apache-2.0
"""QEMU's answers, as they are and as they should not be."""

from __future__ import annotations

import contextlib
import copy
import os
import time
from typing import Any

import pytest

from balloontrace.errors import UserError
from balloontrace.host.qemu import Qemu, process_of

MIB = 1 << 20

MAPPED = """FlatView #0
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-00000000000bffff (prio 0, ram): pc.ram
  00000000febf8000-00000000febf8fff (prio 0, i/o): virtio-pci-common-virtio-balloon
  00000000febfa000-00000000febfafff (prio 0, i/o): virtio-pci-device-virtio-balloon

FlatView #1
 AS "virtio-pci-cfg-mem-as", root: virtio-pci
 Root memory region: virtio-pci
  0000000000002000-0000000000002fff (prio 0, i/o): virtio-pci-device-virtio-balloon
"""

NOT_MAPPED = """FlatView #0
 AS "memory", root: system
 Root memory region: system
  0000000000000000-00000000000bffff (prio 0, ram): pc.ram

FlatView #1
 AS "virtio-pci-cfg-mem-as", root: virtio-pci
 Root memory region: virtio-pci
  0000000000002000-0000000000002fff (prio 0, i/o): virtio-pci-device-virtio-balloon
"""

STATS = {"stat-free-memory": 5 * MIB, "stat-htlb-pgalloc": (1 << 64) - 1, "stat-major-faults": 7}


class FakeQmp:
    """answers: by command, or for a property of the device by its name. set: what was set."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {
            "query-memory-size-summary": {"base-memory": 512 * MIB, "plugged-memory": 128 * MIB},
            "query-memory-devices": [
                {"type": "dimm", "data": {"size": 64 * MIB}},
                {"type": "virtio-mem", "data": {"size": 64 * MIB}},
            ],
            "query-version": {"qemu": {"major": 10, "minor": 0, "micro": 2}, "package": ""},
            "query-cpus-fast": [{"thread-id": 31}, {"thread-id": 30}, {"thread-id": 30}],
            "query-balloon": {"actual": 448 * MIB},
            "query-status": {"status": "running", "running": True},
            "qom-list": [
                {"name": "net", "type": "child<virtio-net-pci>"},
                {"name": "b0", "type": "child<virtio-balloon-pci>"},
            ],
            "guest-stats": {"last-update": 0, "stats": STATS},
            "guest-stats-polling-interval": 2,
            "info mtree -f": MAPPED,
            "xp /4bx 0x00000000febfa000": "00000000febfa000: 0x00 0x48 0x01 0x00\r\n",
        }
        self.set: list[tuple[str, Any]] = []

    def execute(self, command: str, **arguments: Any) -> Any:
        if command == "qom-get":
            assert arguments["path"] == "/machine/peripheral/b0"
            return self.answers[arguments["property"]]
        if command == "qom-set":
            self.set.append((arguments["property"], arguments["value"]))
            self.answers[arguments["property"]] = arguments["value"]
            return {}
        if command == "human-monitor-command":
            return self.answers.get(arguments["command-line"], "Cannot access memory\r\n")
        return copy.deepcopy(self.answers[command])


@pytest.fixture
def qmp() -> FakeQmp:
    return FakeQmp()


def test_facts(qmp: FakeQmp) -> None:
    facts = Qemu(qmp, 7).facts
    assert (facts.hypervisor, facts.version, facts.pid) == ("qemu", "10.0.2", 7)
    assert facts.vcpu_threads == (30, 31)
    assert facts.memory_bytes == 576 * MIB  # as its balloon counts: with DIMMs only


def test_sizes_are_inside_the_balloon(qmp: FakeQmp) -> None:
    told = Qemu(qmp, None).read(statistics=False)
    assert told.actual_bytes == 128 * MIB
    assert told.target_bytes == 0x14800 * 4096
    assert told.state == "running"
    assert told.statistics is None


def test_the_target_where_the_guest_has_not_mapped_the_device(qmp: FakeQmp) -> None:
    qmp.answers["info mtree -f"] = NOT_MAPPED
    qmp.answers["xp /4bx 0x0000000000002000"] = "0000000000002000: 0x53 0xff 0x00 0xf0"  # RAM
    assert Qemu(qmp, None).read(statistics=False).target_bytes is None


@pytest.mark.parametrize("said", ["", "Cannot access memory\r\n", "0: 0x00 0x48\r\n", "0: 0x0001"])
def test_a_target_that_cannot_be_read(qmp: FakeQmp, said: str) -> None:
    qmp.answers["xp /4bx 0x00000000febfa000"] = said
    told = Qemu(qmp, None).read(statistics=False)
    assert told.target_bytes is None
    assert told.actual_bytes == 128 * MIB


def test_a_target_that_is_not_asked_for(qmp: FakeQmp) -> None:
    assert Qemu(qmp, None, reads_target=False).read(statistics=False).target_bytes is None


def test_statistics_that_were_never_told(qmp: FakeQmp) -> None:
    told = Qemu(qmp, None).read(statistics=True).statistics
    assert told
    assert told.age_s is None
    assert told.polling_interval_s == 2
    assert told.values == {"stat-free-memory": 5 * MIB, "stat-major-faults": 7}


def test_the_age_of_statistics(qmp: FakeQmp) -> None:
    qmp.answers["guest-stats"]["last-update"] = int(time.time()) - 40
    told = Qemu(qmp, None).read(statistics=True).statistics
    assert told
    assert told.age_s == pytest.approx(40, abs=3)


@pytest.mark.parametrize("ending", [KeyboardInterrupt, UserError, BrokenPipeError])
def test_the_interval_is_put_back_whatever_ends_it(
    qmp: FakeQmp, ending: type[BaseException]
) -> None:
    with contextlib.suppress(ending), Qemu(qmp, None).polling(5):
        assert qmp.answers["guest-stats-polling-interval"] == 5
        raise ending("over")
    assert qmp.set == [("guest-stats-polling-interval", value) for value in (5, 2)]


def test_a_guest_without_a_balloon(qmp: FakeQmp) -> None:
    qmp.answers["qom-list"] = []
    with pytest.raises(UserError, match="no balloon device"):
        Qemu(qmp, None).read(statistics=True)


ODD: list[Any] = [None, [], {}, "running", 1 << 80, {"actual": "much"}, {"stats": [1]}, [7], [{}]]


@pytest.mark.parametrize("command", FakeQmp().answers)
@pytest.mark.parametrize("answer", ODD, ids=range(len(ODD)))
def test_an_answer_of_another_shape_is_one_line(qmp: FakeQmp, command: str, answer: Any) -> None:
    qmp.answers[command] = answer
    with contextlib.suppress(UserError):
        told = Qemu(qmp, None).read(statistics=True)
        assert told.actual_bytes is not None


def test_who_listens_is_qemu_if_its_threads_are_there(qmp: FakeQmp) -> None:
    qmp.answers["query-cpus-fast"] = [{"thread-id": os.getpid()}]
    assert process_of(qmp, os.getpid()) == os.getpid()
    assert process_of(qmp, os.getppid()) is None
    assert process_of(qmp, None) is None
