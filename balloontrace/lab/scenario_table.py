# SPDX-License-Identifier: Apache-2.0
"""One table of a scenario's file: its values checked, and what is wrong named with its key."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TypeVar

from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.lab.sizes import format_size, parse_size

_T = TypeVar("_T")


class ScenarioTable:
    """One TOML table: hands out its values checked, and complains about what nobody took.

    Every method raises UserError, which names the file and the key, for a value that is wrong.
    """

    def __init__(self, path: Path, name: str, values: dict[str, object]) -> None:
        self._path = path
        self._name = name
        self._values = dict(values)

    def has(self, key: str) -> bool:
        """Return whether the file has the key."""
        return key in self._values

    def take(self, key: str, kind: type[_T], default: _T | None = None) -> _T:
        """Return a value of that type; without a default, the key must be there."""
        value = self._values.pop(key, default)
        if value is None:
            raise self.wrong(key, "is missing")
        # TOML's true is no number, though Python's True is.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.wrong(key, f"must be of type {kind.__name__}")
        return value

    def seconds(self, key: str, default: float | None = None) -> float:
        """Return a time in seconds."""
        if isinstance(self._values.get(key), int):
            value = float(self.take(key, int))
        else:
            value = self.take(key, float, default)
        if not 0 <= value < float("inf"):
            raise self.wrong(key, "must be a time in seconds")
        return value

    def fraction(self, key: str) -> Fraction:
        """Return a fraction of RAM, at least 0 and less than 1."""
        text = self.take(key, str)
        try:
            value = Fraction(text)
        except (ValueError, ZeroDivisionError):
            raise self.wrong(key, 'must be a fraction of RAM such as "53/64"') from None
        if not 0 <= value < 1:
            raise self.wrong(key, "must be at least 0 and less than 1")
        return value

    def optional_fraction(self, key: str) -> Fraction | None:
        """Return a fraction of RAM, or None where the key is not there."""
        return self.fraction(key) if self.has(key) else None

    def whole(self, key: str, default: int, least: int) -> int:
        """Return a whole number of at least so much."""
        value = self.take(key, int, default)
        if value < least:
            raise self.wrong(key, f"must be at least {least}")
        return value

    def one_of(self, key: str, choices: tuple[str, ...]) -> str:
        """Return one of the choices, the first if the key is not there."""
        value = self.take(key, str, choices[0])
        if value not in choices:
            raise self.wrong(key, f"must be one of {', '.join(choices)}")
        return value

    def size(self, key: str, least: int = 1) -> int:
        """Return the bytes of a size, at least so many."""
        text = self.take(key, str)
        try:
            size = parse_size(text)
        except UserError as error:
            raise self.wrong(key, f"is {error.message}") from error
        if size < least:
            raise self.wrong(key, f"must be at least {format_size(least)}")
        return size

    def table(self, key: str) -> ScenarioTable:
        """Return a table of this one, empty if it is not there."""
        value: dict[str, object] = self.take(key, dict, {})
        return ScenarioTable(self._path, f"{self._name}{key}.", value)

    def tables(self, key: str) -> list[ScenarioTable]:
        """Return the tables of an array."""
        values: list[object] = self.take(key, list)
        if not all(isinstance(value, dict) for value in values):
            raise self.wrong(key, f"must be [[{key}]] tables")
        names = (f"{self._name}{key}[{index}]." for index in range(len(values)))
        return [
            ScenarioTable(self._path, name, value)
            for name, value in zip(names, values, strict=True)
            if isinstance(value, dict)
        ]

    def finish(self) -> None:
        """Complain about a key that nobody took."""
        for key in self._values:
            raise self.wrong(key, "is not a key of a scenario")

    def wrong(self, key: str, what: str) -> UserError:
        """Return the error for a key."""
        return UserError(f"{self._path}: {self._name}{key} {what}", exit_code=EXIT_USAGE)
