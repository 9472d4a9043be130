# SPDX-License-Identifier: Apache-2.0
"""What a dataset holds is declared once, and Arrow takes it."""

from __future__ import annotations

import pytest

from balloontrace.fleet import schema


@pytest.mark.parametrize("table", schema.TABLES.values(), ids=lambda table: table.name)
def test_every_column_has_a_type_and_says_what_it_is(table: schema.Table) -> None:
    made = schema.arrow(table)
    assert made.names == [column.name for column in table.columns]
    assert len(set(made.names)) == len(made.names)
    for column, field in zip(table.columns, made, strict=True):
        assert field.metadata[b"doc"].decode() == column.doc != ""
        assert field.nullable is not column.known


def test_a_part_says_of_which_version_it_is() -> None:
    said = schema.arrow(schema.GUEST).metadata
    assert said[b"balloontrace.schema"] == str(schema.VERSION).encode()
    assert said[b"balloontrace.table"] == b"guest"


def test_a_row_is_found_by_its_source_and_batch() -> None:
    for table in schema.TABLES.values():
        assert [column.name for column in table.columns[:2]] == ["source", "batch"]
    with pytest.raises(KeyError):
        schema.GUEST["none such"]
