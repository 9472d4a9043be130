# SPDX-License-Identifier: Apache-2.0
"""The loader, where the driver goes and comes while it attaches, and where pages are large."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest

from balloontrace.errors import UserError
from balloontrace.tracers.attach import attaching
from balloontrace.tracers.attach.attaching import Attachment, nothing
from balloontrace.tracers.attach.forced import Forced
from balloontrace.tracers.attach.means import Held
from balloontrace.tracers.load import loader
from balloontrace.tracers.load.bytecode import Compiled
from balloontrace.tracers.machine import balloon, bpf_calls
from balloontrace.tracers.machine.bpf_calls import MapDefinition


class Drivers:
    """One driver after the other, each by its number; 0: none. at: which is there now; refused:
    numbers of those to which nothing can be attached; silent: whose probes do not fire; held: what
    is attached, by the driver."""

    def __init__(self, *identities: int) -> None:
        self._identities = identities
        self.at = 0
        self.refused: set[int] = set()
        self.silent: set[int] = set()
        self.held: dict[int, Held] = {}

    def identity(self) -> int:
        """Of the one that is there, as balloon.identity tells it."""
        return self._identities[self.at]

    def attach(self, _code: object, _map: object, running: Any, *_: object) -> Attachment:
        """The next one comes meanwhile."""
        self.at = min(self.at + 1, len(self._identities) - 1)
        if running.driver in self.refused:
            raise UserError("cannot trace the balloon")
        seams = {"proof": {"rung": "proof" if running.driver in self.silent else None}}
        held = self.held[running.driver] = Held([os.open(os.devnull, os.O_RDONLY)], [])
        return Attachment({"seams": seams, "driver_identity": running.driver}, held)

    @property
    def attached_to(self) -> list[int]:
        """Those to which something is attached now."""
        return [driver for driver, held in self.held.items() if held.probes]


class _Running:
    def __init__(self, drivers: Drivers) -> None:
        self.driver = drivers.identity()


@pytest.fixture
def drivers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Drivers]:
    """As the test's parameter lists them."""
    made = Drivers(*request.param)
    monkeypatch.setattr(balloon, "identity", made.identity)
    monkeypatch.setattr(attaching, "attach", made.attach)
    monkeypatch.setattr(loader, "Kernel", lambda: _Running(made))
    yield made
    for held in made.held.values():
        held.close()


def attached(drivers: Drivers) -> dict[str, Any]:
    """What is attached in the end."""
    running: Any = _Running(drivers)
    done = loader._attach(Compiled((), {}), {"layout": 0, "control": 0}, running, {}, Forced())
    return done.described


@pytest.mark.parametrize("drivers", [(7, 7)], indirect=True)
def test_a_driver_that_stays_is_attached_to(drivers: Drivers) -> None:
    assert attached(drivers)["driver_identity"] == 7
    assert drivers.attached_to == [7]


@pytest.mark.parametrize("drivers", [(7, 8, 8)], indirect=True)
@pytest.mark.parametrize("refused", [set(), {7}])
def test_one_that_is_loaded_again_meanwhile_is_attached_to_again(
    drivers: Drivers, refused: set[int]
) -> None:
    drivers.refused = refused
    assert attached(drivers)["driver_identity"] == 8
    assert drivers.attached_to == [8]


@pytest.mark.parametrize("drivers", [(7, 8, 8)], indirect=True)
def test_probes_of_one_that_is_gone_do_not_fire_and_do_not_stay(
    drivers: Drivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(_: int) -> NoReturn:
        raise UserError("the probes do not fire")

    monkeypatch.setattr(loader, "Control", silent)
    drivers.silent = {7}
    assert attached(drivers)["driver_identity"] == 8
    assert drivers.attached_to == [8]


@pytest.mark.parametrize("drivers", [(7, 0)], indirect=True)
@pytest.mark.parametrize("refused", [set(), {7}])
def test_one_that_is_gone_meanwhile_is_not_there(drivers: Drivers, refused: set[int]) -> None:
    drivers.refused = refused
    assert attached(drivers) == nothing().described
    assert drivers.attached_to == []


@pytest.mark.parametrize("drivers", [(7, 7)], indirect=True)
def test_one_that_refuses_is_said(drivers: Drivers) -> None:
    drivers.refused = {7}
    with pytest.raises(UserError, match="cannot trace"):
        attached(drivers)


@pytest.mark.parametrize(("asked", "made"), [(4096, 65_536), (65_536, 65_536), (1 << 20, 1 << 20)])
def test_the_ring_is_of_whole_pages(asked: int, made: int, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {}

    def create_map(definition: MapDefinition) -> int:
        entries[definition.name] = definition.entries
        return -1

    monkeypatch.setattr("mmap.PAGESIZE", 65_536)
    monkeypatch.setattr(bpf_calls, "create_map", create_map)
    given = loader.load(None, asked, Forced()._asdict(), keep=False, silent=False)
    os.close(given.code[0])
    assert entries["events"] == given.content["ring_bytes"] == made
