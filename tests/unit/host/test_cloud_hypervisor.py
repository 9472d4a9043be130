# SPDX-License-Identifier: Apache-2.0
"""cloud-hypervisor, by a server that speaks its published API (cloud-hypervisor.yaml)."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from balloontrace.errors import UserError
from balloontrace.host.cloud_hypervisor import CloudHypervisor
from tests.unit.host.api_server import Answers, serving

GIB = 1 << 30

API: dict[str, Any] = {
    "/api/v1/vmm.ping": {"build_version": "v48.0", "version": "48.0.0", "pid": 4711},
    "/api/v1/vm.info": {
        "config": {"memory": {"size": GIB}, "balloon": {"size": GIB // 2}},
        "state": "Running",
        "memory_actual_size": GIB - GIB // 4,
    },
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Answers]:
    with serving(tmp_path / "api", copy.deepcopy(API)) as answers:
        yield answers


@pytest.fixture
def source(server: Answers, tmp_path: Path) -> CloudHypervisor:
    return CloudHypervisor(str(tmp_path / "api"), None)


def test_facts(source: CloudHypervisor) -> None:
    facts = source.facts
    assert (facts.hypervisor, facts.version) == ("cloud-hypervisor", "48.0.0")
    assert (facts.memory_bytes, facts.pid) == (GIB, 4711)


def test_what_is_left_becomes_what_is_inside(source: CloudHypervisor) -> None:
    told = source.read(statistics=True)
    assert told.target_bytes == GIB // 2
    assert told.actual_bytes == GIB // 4
    assert told.statistics is None
    assert told.state == "running"


def test_memory_in_zones_and_plugged_in_counts(
    server: Answers, source: CloudHypervisor, tmp_path: Path
) -> None:
    info = server.resources["/api/v1/vm.info"]
    zone = {"id": "m", "size": GIB, "hotplugged_size": GIB}
    info["config"]["memory"] = {"size": 0, "zones": [zone]}
    info["memory_actual_size"] = 2 * GIB - GIB // 4
    assert source.read(statistics=True).actual_bytes == GIB // 4
    assert CloudHypervisor(str(tmp_path / "api"), None).facts.memory_bytes == 2 * GIB


def test_a_guest_without_a_balloon(server: Answers, source: CloudHypervisor) -> None:
    del server.resources["/api/v1/vm.info"]["config"]["balloon"]
    assert source.read(statistics=True).target_bytes is None


def test_it_asks_for_no_statistics(source: CloudHypervisor) -> None:
    with pytest.raises(UserError, match="does not ask its guests"):
        source.polling(1)


def test_a_guest_that_is_no_more(server: Answers, source: CloudHypervisor) -> None:
    server.resources["/api/v1/vm.info"] = (500, b"VM is not created")
    with pytest.raises(UserError, match=r"vm\.info was refused"):
        source.read(statistics=True)


def test_another_server(tmp_path: Path) -> None:
    resources: dict[str, Any] = {"/api/v1/vmm.ping": {}, "/api/v1/vm.info": {"config": []}}
    told = pytest.raises(UserError, match="is no cloud-hypervisor")
    with serving(tmp_path / "api", resources), told:
        CloudHypervisor(str(tmp_path / "api"), None)
