# SPDX-License-Identifier: Apache-2.0
"""The overview of a dataset as one page that needs nothing but a browser, and no script."""

from __future__ import annotations

from importlib import resources

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from balloontrace import __version__
from balloontrace.analysis.html.tables import ROWS, Blocks
from balloontrace.escape import visible
from balloontrace.fleet.changes import Changes
from balloontrace.fleet.overview import Overview
from balloontrace.fleet.text import headline, write_overview

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_STYLE = resources.files("balloontrace.analysis.html") / "web" / "page.css"


def overview_html(overview: Overview, changes: Changes | None, directory: str) -> str:
    """The overview. directory: of the dataset, for commands to run. Whatever the page says is
    escaped by its template; it holds no script, and can fetch nothing."""
    page = Blocks()
    write_overview(page, overview, changes, directory, ROWS)
    environment = Environment(
        loader=ChoiceLoader(
            [
                PackageLoader("balloontrace.fleet", "web"),
                PackageLoader("balloontrace.analysis.html", "web"),
            ]
        ),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return environment.get_template("overview.html.j2").render(
        title=visible(directory),
        verdict=page.sections[0].blocks,
        headline=list(headline(overview)),
        sections=[section for section in page.sections[1:] if section.blocks],
        style=Markup(_STYLE.read_text()),  # noqa: S704
        policy=_POLICY,
        version=__version__,
    )
