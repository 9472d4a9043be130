# SPDX-License-Identifier: Apache-2.0
"""Firecracker, by a server that speaks its published API (firecracker.yaml)."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from balloontrace.errors import UserError
from balloontrace.host.firecracker import Firecracker
from tests.unit.host.api_server import Answers, serving

MIB = 1 << 20

API: dict[str, Any] = {
    "/": {"id": "vm", "state": "Running", "vmm_version": "1.13.0", "app_name": "Firecracker"},
    "/machine-config": {"vcpu_count": 2, "mem_size_mib": 512, "smt": False},
    "/balloon": {"amount_mib": 128, "deflate_on_oom": True, "stats_polling_interval_s": 1},
    "/balloon/statistics": {
        "target_pages": 32768,
        "actual_pages": 300,
        "target_mib": 128,
        "actual_mib": 1,
        "swap_in": 0,
        "free_memory": 4 << 20,
        "major_faults": 7,
    },
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Answers]:
    with serving(tmp_path / "api", copy.deepcopy(API)) as answers:
        yield answers


@pytest.fixture
def source(server: Answers, tmp_path: Path) -> Firecracker:
    return Firecracker(str(tmp_path / "api"), None)


def test_facts(source: Firecracker) -> None:
    facts = source.facts
    assert (facts.hypervisor, facts.version) == ("firecracker", "1.13.0")
    assert facts.memory_bytes == 512 * MIB
    assert facts.pid == os.getpid()  # who listens


def test_sizes_are_what_the_balloon_holds(source: Firecracker) -> None:
    told = source.read(statistics=True)
    assert told.target_bytes == 128 * MIB
    assert told.actual_bytes == 300 * 4096  # by pages: the MiB are rounded
    assert told.state == "running"
    assert told.statistics
    assert told.statistics.values == {"swap_in": 0, "free_memory": 4 << 20, "major_faults": 7}
    assert told.statistics.polling_interval_s == 1
    assert told.statistics.age_s is None  # it does not say when


def test_without_statistics_the_size_is_not_known(server: Answers, source: Firecracker) -> None:
    server.resources["/balloon"]["stats_polling_interval_s"] = 0
    told = source.read(statistics=True)
    assert told.target_bytes == 128 * MIB
    assert told.actual_bytes is None
    assert ("GET", "/balloon/statistics", None) not in server.asked


def test_statistics_that_the_driver_has_not_sent_yet(server: Answers, source: Firecracker) -> None:
    server.resources["/balloon/statistics"] = (400, {"fault_message": "device not activated"})
    told = source.read(statistics=True)
    assert told.actual_bytes is None
    assert told.statistics
    assert told.statistics.values == {}


def test_the_interval_is_put_back(server: Answers, source: Firecracker) -> None:
    with pytest.raises(KeyboardInterrupt), source.polling(5):
        raise KeyboardInterrupt
    wanted = [{"stats_polling_interval_s": 5}, {"stats_polling_interval_s": 1}]
    patches = [asked for asked in server.asked if asked[0] == "PATCH"]
    assert patches == [("PATCH", "/balloon/statistics", content) for content in wanted]


def test_nothing_is_set_by_reading(server: Answers, source: Firecracker) -> None:
    source.read(statistics=True)
    assert {method for method, _, _ in server.asked} == {"GET"}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{",
        b"[1]",
        b"[" * 100_000,
        b'{"amount_mib": "128"}',
        b'{"amount_mib": -1}',
        b'{"amount_mib": ' + b"9" * 5000 + b"}",
    ],
    ids=range(7),
)
def test_an_answer_of_another_shape(server: Answers, source: Firecracker, answer: bytes) -> None:
    server.resources["/balloon"] = server.resources["/balloon/statistics"] = answer
    told = source.read(statistics=True)
    assert told.target_bytes is None
    assert told.actual_bytes is None


def test_a_guest_without_a_balloon(server: Answers, source: Firecracker) -> None:
    server.resources["/balloon"] = (400, {"fault_message": "No balloon device found."})
    with pytest.raises(UserError, match=r"refused: No balloon device found\."):
        source.read(statistics=False)


def test_one_that_is_gone(tmp_path: Path) -> None:
    with serving(tmp_path / "api", API):
        source = Firecracker(str(tmp_path / "api"), 1)
    with pytest.raises(UserError, match="no answer at"):
        source.read(statistics=False)


def test_another_server(tmp_path: Path) -> None:
    told = pytest.raises(UserError, match="is no Firecracker")
    with serving(tmp_path / "api", {"/machine-config": {}}), told:
        Firecracker(str(tmp_path / "api"), None)
