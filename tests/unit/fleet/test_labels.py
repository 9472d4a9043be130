# SPDX-License-Identifier: Apache-2.0
"""Files of labels, good and bad."""

from __future__ import annotations

from pathlib import Path

import pytest

from balloontrace.errors import EXIT_USAGE, UserError
from balloontrace.fleet.labels import Labels, read_labels


def written(path: Path, content: bytes) -> Path:
    (path / "labels.csv").write_bytes(content)
    return path / "labels.csv"


def test_labels_are_read(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbfhost_name,cluster,zone\r\nweb-1,"a, b",north\r\n\r\nweb-2,,\xc3\xa9\r\n'
    assert read_labels(written(tmp_path, content)) == Labels(
        "host_name", ("cluster", "zone"), {"web-1": ("a, b", "north"), "web-2": (None, "é")}
    )


def test_they_are_written_as_names_in_a_dataset_are(tmp_path: Path) -> None:
    labels = read_labels(written(tmp_path, b"boot_id,zone\n1\x1b,\x1b[2J\n"))
    assert labels.values == {r"1\x1b": (r"\x1b[2J",)}


def test_the_same_twice_is_no_harm(tmp_path: Path) -> None:
    assert read_labels(written(tmp_path, b"boot_id,z\n1,a\n1,a\n")).values == {"1": ("a",)}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is no file of labels"),
        (b"host_name\nweb-1\n", "is no file of labels"),
        (b"name,zone\nweb-1,a\n", "is no file of labels"),
        (b"host_name,\nweb-1,a\n", "is no file of labels"),
        (b"host_name,zone,zone\nweb-1,a,b\n", "two columns of one name"),
        (b"host_name,zone\nweb-1\n", "line 2: 1 fields in place of 2"),
        (b"host_name,zone\nweb-1,a\nweb-1,b\n", "line 3: web-1 has other labels above"),
        (b"host_name,zone\nweb-1,\xff\n", "is no CSV file"),
        (b'host_name,zone\nweb-1,"a\n', "is no CSV file"),
        (b"host_name,zone\nweb-1,a\x00\n" + b"x" * 200_000, "is no CSV file"),
    ],
)
def test_a_bad_file_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        read_labels(written(tmp_path, content))
    assert refused.value.exit_code == EXIT_USAGE
    assert "\n" not in str(refused.value)


def test_a_name_that_no_file_can_have() -> None:
    with pytest.raises(UserError, match="File name too long"):
        read_labels(Path("a" * 300))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read"):
        read_labels(tmp_path / "none.csv")
