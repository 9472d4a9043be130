"""Scenarios: what happens to a guest, as TOML files.

Top level: ``description``; ``[guest]`` memory, cpus, deflate_on_oom; ``[workload]`` (optional)
read_file; ``[[balloon]]`` steps in order: target, limit_s, at_limit ("go-on" or "stop-workload"),
grace_s, stop_workload. Targets and file sizes are fractions of RAM.
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

_T = TypeVar("_T")


@dataclass(frozen=True)
class Step:
    """One target of the balloon, as a fraction of RAM, and how long to wait for it.

    stop_workload: end the workload before the target is set. at_limit: what to do when limit_s
    passes without the target: go on, or stop the workload and wait another grace_s.
    """

    target: Fraction
    limit_s: float
    at_limit: str = "go-on"
    grace_s: float = 0.0
    stop_workload: bool = False


@dataclass(frozen=True)
class Scenario:
    """A parsed scenario. read_file is the reader's file as a fraction of RAM, None for none."""

    name: str
    description: str
    memory_bytes: int
    cpus: int
    deflate_on_oom: bool
    read_file: Fraction | None
    steps: tuple[Step, ...]


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
    scenario = Scenario(
        name=path.stem,
        description=top.take("description", str, ""),
        memory_bytes=_size(guest, "memory"),
        cpus=_cpus(guest),
        deflate_on_oom=guest.take("deflate_on_oom", bool, True),
        read_file=workload.fraction("read_file") if "workload" in document else None,
        steps=tuple(_step(table) for table in top.tables("balloon")),
    )
    for table in (guest, workload, top):
        table.finish()
    return scenario


class _Table:
    """One TOML table: hands out its values checked, and complains about what nobody took."""

    def __init__(self, path: Path, name: str, values: dict[str, object]) -> None:
        self._path = path
        self._name = name
        self._values = dict(values)

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


def _cpus(table: _Table) -> int:
    cpus = table.take("cpus", int, 2)
    if cpus < 1:
        raise table.wrong("cpus", "must be at least 1")
    return cpus


def _step(table: _Table) -> Step:
    step = Step(
        target=table.fraction("target"),
        limit_s=table.seconds("limit_s"),
        at_limit=table.take("at_limit", str, "go-on"),
        grace_s=table.seconds("grace_s", 0.0),
        stop_workload=table.take("stop_workload", bool, False),
    )
    if step.at_limit not in AT_LIMIT:
        raise table.wrong("at_limit", f"must be one of {', '.join(AT_LIMIT)}")
    table.finish()
    return step
