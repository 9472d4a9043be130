# SPDX-License-Identifier: Apache-2.0
"""Why a step of an image's build failed, in one line, and what to correct."""

from __future__ import annotations

import re
from pathlib import Path

from balloontrace.errors import UserError
from balloontrace.lab.tables import Table

_NO_NETWORK = re.compile(r"resolv|Could not connect|Network is unreachable|timed out", re.I)
# What apt says of an archive that no longer has what the table asks for.
_NO_SUITE = re.compile(
    r"The repository '(?P<url>\S+) (?P<suite>\S+) (?:In)?Release' (?:does not have|is not signed)"
)
_EXPIRED = re.compile(r"Release file for (?P<url>\S+)/dists/(?P<suite>\S+)/InRelease is expired")
_NO_PACKAGE = re.compile(
    r"Unable to locate package (?P<name>\S+)"
    r"|Package '(?P<virtual>\S+)' has no installation candidate"
    r"|Version '\S+' for '(?P<versioned>\S+)' was not found"
)
# A list may name a package whose file has gone from the archive.
_NO_FILE = re.compile(
    r"Err:\d+ (?P<url>\S+) (?P<suite>[^\s/]+)/\S+ \S+ (?P<name>\S+) \S+ \S+\n\s+404 +Not Found"
)
# What a mirror says that may do better a moment later. apt's own retries leave out most of it.
_MOMENTARY = re.compile(
    r"^\s*(?:5\d\d  \S|Hash Sum mismatch|File has unexpected size|Connection (?:failed|timed out)"
    r"|Error reading from server|The HTTP server sent an invalid|Bad header)"
    r"|Temporary failure resolving|Could not connect|Connection reset|Failed to fetch \S+  5\d\d ",
    re.M | re.I,
)
_HEADERS = r"^\s*headers\s*="
_OTHER_HEADERS = "headers are not of the guest's kernel"


def step_error(log: Path, table: Table) -> UserError:
    """Return the error for a failed step, from the log it left."""
    text = log.read_text(encoding="utf-8")
    errors = [line for line in text.splitlines() if line.startswith(("E: ", "dpkg: error"))]
    reason = errors[0][3:] if errors else next(reversed(text.splitlines()), "no output")
    step = log.stem.rpartition("-")[2]
    message = f"building the image of {table.name} failed in step {step}: {reason.rstrip('.')}"
    hint = _archive_remedy(text, table)
    if not hint and _NO_NETWORK.search("\n".join(errors)):
        hint = "is the network up? the build downloads from Debian's archive"
    if not hint and "No space left" in text:
        hint = "free some disk space"
    return UserError(message, hint or f"see {log}")


def is_momentary(log: Path) -> bool:
    """Return whether a failed step may succeed if it is done again, from the log it left."""
    return _MOMENTARY.search(log.read_text(encoding="utf-8")) is not None


def _archive_remedy(text: str, table: Table) -> str | None:
    if match := _NO_SUITE.search(text):
        return f"the archive has no such suite: correct {_source(table, match)}"
    if match := _EXPIRED.search(text):
        option = "[check-valid-until=no]"
        return f"is the clock right? if the mirror lags, add {option} to {_source(table, match)}"
    if match := _NO_PACKAGE.search(text):
        return _missing_package(table, next(filter(None, match.groups())))
    if match := _NO_FILE.search(text):
        entry = _package(table, match["name"]) or _source(table, match)
        return f"the archive has lost that package: correct {entry}"
    if _OTHER_HEADERS in text:
        return f"correct {table.place(_HEADERS) or table.FILE}"
    return None


def _missing_package(table: Table, name: str) -> str:
    if entry := _package(table, name):
        return f"the archive has no such package: correct {entry}"
    at = table.place(r"^\s*\[") or table.FILE
    return f"add {name!r} to `without` of the table at {at}"


def _source(table: Table, match: re.Match[str]) -> str:
    """Where the sources.list line of a URL and a suite stands."""
    pattern = rf"{re.escape(match['url'])} {re.escape(match['suite'])}[ \"]"
    return table.place(pattern) or str(table.FILE)


def _package(table: Table, name: str) -> str | None:
    """Where the table names the package, with or without a version."""
    keys = "|".join(table.PACKAGE_KEYS)
    return table.place(rf"^\s*({keys})\s*=.*\"{re.escape(name)}[=\"]")
