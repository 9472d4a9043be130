# SPDX-License-Identifier: Apache-2.0
"""Labels of one's own: a CSV file that says of guests to which cluster, customer or zone they
belong. Its first column names the guest; the others are labels."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.escape import visible

KEYS = ("host_name", "boot_id")
"""What a guest can be named by: the title of the first column."""

_TITLE = "the first line names the columns: host_name or boot_id, then labels"


@dataclass(frozen=True)
class Labels:
    """key: one of KEYS; names: of the labels; values: of each guest, one for each name, None where
    the file has none."""

    key: str
    names: tuple[str, ...]
    values: dict[str, tuple[str | None, ...]]


def read_labels(path: Path) -> Labels:
    """Read a file of labels. Raises UserError, which names the line, if it is none, or says two
    things of one guest."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise UserError(f"{path} is no file", "", EXIT_USAGE)
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, strict=True)
            title = [cell.strip() for cell in next(rows, [])]
            key, names = _columns(path, title)
            values: dict[str, tuple[str | None, ...]] = {}
            for row in rows:
                if not any(cell.strip() for cell in row):
                    continue
                if len(row) != len(title):
                    raise _wrong(path, rows.line_num, f"{len(row)} fields in place of {len(title)}")
                # As in a dataset, where no name can hold anything harmful.
                guest, *said = (visible(cell.strip()) for cell in row)
                labels = tuple(one or None for one in said)
                if values.setdefault(guest, labels) != labels:
                    raise _wrong(path, rows.line_num, f"{guest} has other labels above")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", "", EXIT_USAGE) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is no CSV file: {error}", _TITLE, EXIT_USAGE) from None
    return Labels(key, names, values)


def _columns(path: Path, title: list[str]) -> tuple[str, tuple[str, ...]]:
    """The key, and the names of the labels."""
    names = tuple(map(visible, title[1:]))
    if not title or title[0] not in KEYS or not names or not all(names):
        raise UserError(f"{path} is no file of labels", _TITLE, EXIT_USAGE)
    if len(set(names)) < len(names):
        raise UserError(f"{path} has two columns of one name", "", EXIT_USAGE)
    return title[0], names


def _wrong(path: Path, line: int, what: str) -> UserError:
    return UserError(f"{path}, line {line}: {what}", "", EXIT_USAGE)
