# SPDX-License-Identifier: Apache-2.0
"""Scenarios: what happens to a guest, as TOML files.

Top level: ``description``, ``repeat``; ``[guest]`` memory, cpus, disk, deflate_on_oom;
``[workload]`` (optional) read_file, random, ``[workload.hog]`` (see Hog); ``[host]`` (optional)
discard_delay_us; ``[[balloon]]`` steps in order (see Step). Sizes are fractions of RAM, but for
memory and disk. docs/lab.md shows one.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.lab.sizes import parse_size

SCENARIOS_DIRECTORY = Path(__file__).with_name("scenarios")

AT_LIMIT = ("go-on", "stop-workload")
UNTIL = ("reached", "hog-ends")

_T = TypeVar("_T")


@dataclass(frozen=True)
class Step:
    """One target of the balloon, as a fraction of RAM, and how long to wait for it.

    stop_workload: end the workload; run: a command that the guest runs; touch: a task touches
    so much of RAM and ends; rest_s: the guest is left alone for so long; in this order, before
    the target is set. start_hog: start the hog once it is set; resend_s: send the target again
    every so many seconds, 0: never. until: wait until the target is reached, or until the hog
    has ended, which is killed after limit_s; give_up_s: or until the balloon came no closer for
    so long, 0: however long. at_limit: what to do when limit_s passes without the target: go
    on, or stop the workload and wait another grace_s.
    """

    target: Fraction
    limit_s: float
    at_limit: str = "go-on"
    grace_s: float = 0.0
    stop_workload: bool = False
    touch: Fraction | None = None
    rest_s: float = 0.0
    run: str = ""
    start_hog: bool = False
    resend_s: float = 0.0
    until: str = "reached"
    give_up_s: float = 0.0


@dataclass(frozen=True)
class Hog:
    """A task that takes memory, started by a step; sizes are fractions of RAM.

    It takes so much and ends (take), or takes until the balloon has given up so much
    (until_given_back); one of the two. lock: its program stays in memory; memory_max: it runs in a
    memory cgroup with this limit; limit_s: the guest's kernel ends it then, 0: never; mib_per_s:
    how fast it takes until so much was given back, 0: as fast as it can.
    """

    take: Fraction | None
    until_given_back: Fraction | None
    lock: bool = True
    memory_max: Fraction | None = None
    limit_s: int = 0
    mib_per_s: int = 0


@dataclass(frozen=True)
class Scenario:
    """A parsed scenario.

    disk_bytes: the size of the guest's disk, 0: the image's. read_file: the reader's file as a
    fraction of RAM, None for none; random: it is not sparse, but random bytes on the disk;
    discard_delay_us: how much longer the host takes for each page of the balloon while the steps
    last; means: of `record`, '' for the best.
    """

    name: str
    description: str
    memory_bytes: int
    cpus: int
    deflate_on_oom: bool
    read_file: Fraction | None
    hog: Hog | None
    discard_delay_us: int
    steps: tuple[Step, ...]
    repeat: int = 1
    disk_bytes: int = 0
    random: bool = False
    means: str = ""


def list_scenarios() -> list[Scenario]:
    """Return the scenarios balloontrace comes with, by name."""
    return [load_scenario(path) for path in sorted(SCENARIOS_DIRECTORY.glob("*.toml"))]


def find_scenario(name: str) -> Scenario:
    """Return a scenario by its name, or from a path ending in ``.toml``.

    Raises UserError if there is none, or if the file is wrong.
    """
    path = Path(name) if name.endswith(".toml") else SCENARIOS_DIRECTORY / f"{name}.toml"
    if not path.is_file():
        names = ", ".join(known.name for known in list_scenarios())
        raise UserError(f"there is no scenario {name!r}", f"there are {names}", EXIT_USAGE)
    return load_scenario(path)


def load_scenario(path: Path) -> Scenario:
    """Parse one file. Raises UserError naming the file and the key that is wrong."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not TOML: {error}", exit_code=EXIT_USAGE) from error
    top = _Table(path, "", document)
    guest = top.table("guest")
    workload = top.table("workload")
    host = top.table("host")
    hog = _hog(workload.table("hog")) if workload.has("hog") else None
    if "workload" in document and hog is None and not workload.has("read_file"):
        raise top.wrong("workload", "must have read_file or hog")
    scenario = Scenario(
        name=path.stem,
        description=top.take("description", str, ""),
        memory_bytes=_size(guest, "memory"),
        cpus=guest.whole("cpus", 2, least=1),
        deflate_on_oom=guest.take("deflate_on_oom", bool, True),
        read_file=workload.optional_fraction("read_file"),
        hog=hog,
        discard_delay_us=host.whole("discard_delay_us", 0, least=0),
        repeat=top.whole("repeat", 1, least=1),
        disk_bytes=_size(guest, "disk") if guest.has("disk") else 0,
        random=workload.take("random", bool, False),
        means=top.take("means", str, ""),
        steps=tuple(_step(table, hog is not None) for table in top.tables("balloon")),
    )
    for table in (guest, workload, host, top):
        table.finish()
    return scenario


class _Table:
    """One TOML table: hands out its values checked, and complains about what nobody took."""

    def __init__(self, path: Path, name: str, values: dict[str, object]) -> None:
        self._path = path
        self._name = name
        self._values = dict(values)

    def has(self, key: str) -> bool:
        return key in self._values

    def take(self, key: str, kind: type[_T], default: _T | None = None) -> _T:
        value = self._values.pop(key, default)
        if value is None:
            raise self.wrong(key, "is missing")
        # TOML's true is no number, though Python's True is.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(key, f"must be of type {kind.__name__}")
        return value

    def seconds(self, key: str, default: float | None = None) -> float:
        if isinstance(self._values.get(key), int):
            value = float(self.take(key, int))
        else:
            value = self.take(key, float, default)
        if not 0 <= value < float("inf"):
            raise self.wrong(key, "must be a time in seconds")
        return value

    def fraction(self, key: str) -> Fraction:
        text = self.take(key, str)
        try:
            value = Fraction(text)
        except (ValueError, ZeroDivisionError):
            raise self.wrong(key, 'must be a fraction of RAM such as "53/64"') from None
        if not 0 <= value < 1:
            raise self.wrong(key, "must be at least 0 and less than 1")
        return value

    def optional_fraction(self, key: str) -> Fraction | None:
        return self.fraction(key) if self.has(key) else None

    def whole(self, key: str, default: int, least: int) -> int:
        value = self.take(key, int, default)
        if value < least:
            raise self.wrong(key, f"must be at least {least}")
        return value

    def one_of(self, key: str, choices: tuple[str, ...]) -> str:
        value = self.take(key, str, choices[0])
        if value not in choices:
            raise self.wrong(key, f"must be one of {', '.join(choices)}")
        return value

    def table(self, key: str) -> _Table:
        value: dict[str, object] = self.take(key, dict, {})
        return _Table(self._path, f"{self._name}{key}.", value)

    def tables(self, key: str) -> list[_Table]:
        values: list[object] = self.take(key, list)
        if not all(isinstance(value, dict) for value in values):
            raise self.wrong(key, f"must be [[{key}]] tables")
        names = (f"{self._name}{key}[{index}]." for index in range(len(values)))
        return [
            _Table(self._path, name, value)
            for name, value in zip(names, values, strict=True)
            if isinstance(value, dict)
        ]

    def finish(self) -> None:
        for key in self._values:
            raise self.wrong(key, "is not a key of a scenario")

    def wrong(self, key: str, what: str) -> UserError:
        return UserError(f"{self._path}: {self._name}{key} {what}", exit_code=EXIT_USAGE)


def _size(table: _Table, key: str) -> int:
    text = table.take(key, str)
    try:
        return parse_size(text)
    except UserError as error:
        raise table.wrong(key, f"is {error.message}") from error


def _hog(table: _Table) -> Hog:
    if table.has("take") == table.has("until_given_back"):
        raise table.wrong("take", "or until_given_back is needed, and not both")
    hog = Hog(
        take=table.optional_fraction("take"),
        until_given_back=table.optional_fraction("until_given_back"),
        lock=table.take("lock", bool, True),
        memory_max=table.optional_fraction("memory_max"),
        limit_s=table.whole("limit_s", 0, least=0),
        mib_per_s=table.whole("mib_per_s", 0, least=0),
    )
    table.finish()
    return hog


def _step(table: _Table, has_hog: bool) -> Step:
    step = Step(
        target=table.fraction("target"),
        limit_s=table.seconds("limit_s"),
        at_limit=table.one_of("at_limit", AT_LIMIT),
        grace_s=table.seconds("grace_s", 0.0),
        stop_workload=table.take("stop_workload", bool, False),
        touch=table.optional_fraction("touch"),
        rest_s=table.seconds("rest_s", 0.0),
        run=table.take("run", str, ""),
        start_hog=table.take("start_hog", bool, False),
        resend_s=table.seconds("resend_s", 0.0),
        until=table.one_of("until", UNTIL),
        give_up_s=table.seconds("give_up_s", 0.0),
    )
    if not has_hog and (step.start_hog or step.until == "hog-ends"):
        raise table.wrong("start_hog", "or until needs a [workload.hog]")
    table.finish()
    return step
