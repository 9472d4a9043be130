# SPDX-License-Identifier: Apache-2.0
"""What the documents point to is there, and what they show is so."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

from balloontrace.cli.app import app

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


def anchors_of(document: Path) -> set[str]:
    """What a link can point to in it, as GitHub names headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_within_the_project_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        path = document.parent / name if name else document
        assert path.exists(), target
        if anchor and path.suffix == ".md":
            assert anchor in anchors_of(path), target


def test_every_document_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    for document in ROOT.glob("docs/**/*.md"):
        name = str(document.relative_to(ROOT / "docs"))
        assert name == "README.md" or f"({name})" in index, name


def test_what_the_code_calls_metrics_is_defined() -> None:
    defined = (ROOT / "docs" / "concepts" / "metrics.md").read_text()
    for path in (ROOT / "balloontrace").glob("**/*.py"):
        for words in re.findall(r"metrics\.md: ([\w\s,-]+)\)", path.read_text()):
            for word in words.split(","):
                assert " ".join(word.split()) in defined, (path, word)


def test_prose_is_within_100_columns() -> None:
    for document in DOCUMENTS:
        text = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.M | re.S)
        for line in text.splitlines():
            # Tables, what commands print, and links have no place to break.
            assert len(line) <= 100 or line.startswith(("|", "    ")) or "](" in line, (
                document,
                line,
            )


def test_the_example_of_export_gives_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two commands, and the table below them."""
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    example = re.search(r'\$ (balloontrace export .*)\n\$ duckdb -c "([^"]*)"', text)
    assert example
    command, query = example.groups()
    shown = re.findall(r"^\| (\w+) \| (\d+) \| (\d+) \| ([\d.]+) \|$", text, re.M)
    source = ROOT / "tests" / "data" / "6.1-tour.btrace"
    given = [str(source) if word.endswith(".btrace") else word for word in command.split()[1:]]
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, given).exit_code == 0
    with duckdb.connect() as database:
        rows = database.execute(query).fetchall()
    assert [tuple(map(str, row)) for row in rows] == shown
