# SPDX-License-Identifier: Apache-2.0
"""`make fuzz`: recordings that somebody made to break a reader, found by atheris (libFuzzer).

Recordings (seeds.py) are changed (mutations.py) and put to every use there is: reports as text,
JSON, a page and a picture, comparisons, exports, a pipe. Anything but a result or a UserError is a
crash, and so is a warning, or more CPU time than a recording may cost. argv: libFuzzer's options,
such as -runs=10000 or -max_total_time=600; -rss_limit_mb says what memory may be taken.
"""

from __future__ import annotations

import io
import json
import os
import random
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["balloontrace"]):
    from balloontrace.analysis.compare import compare
    from balloontrace.analysis.export import csv, parquet, perfetto
    from balloontrace.analysis.html.report import compare_html, report_html
    from balloontrace.analysis.json import compare_json, overview_json, report_json
    from balloontrace.analysis.report import Report, build
    from balloontrace.analysis.text.compare import compare_text
    from balloontrace.analysis.text.overview import overview_text
    from balloontrace.analysis.text.report import first_screen, report_text
    from balloontrace.analysis.text.writer import WIDTH
    from balloontrace.analysis.timeline.matplotlib import figure
    from balloontrace.analysis.timeline.picture import picture, picture_pair
    from balloontrace.analysis.timeline.series import alone
    from balloontrace.analysis.timeline.terminal import timeline
    from balloontrace.analysis.trace.trace import read_trace
    from balloontrace.errors import UserError
    from balloontrace.live import json_lines
    from balloontrace.live.model import Model
    from balloontrace.live.plain import Lines

from tests.stress.mutations import framed, mutated, pick
from tests.stress.seeds import seeds

CPU_S = 10.0
"""What a use of a recording may take. Not of wall clock: other things run on this machine."""

_BEGINNINGS, _INPUT_BYTES = 100, 200

_PIECE = 16_384
"""Bytes of a stream that come at once."""

SEEDS = seeds()
_DIRECTORY = Path(tempfile.mkdtemp(prefix="balloontrace-fuzz-"))
_FUZZED, _WHOLE, _PIPE = (str(_DIRECTORY / name) for name in ("fuzzed", "whole", "pipe"))
Path(_WHOLE).write_bytes(framed(SEEDS[0]))


def _printable(text: str) -> None:
    """Raises what is a crash if a terminal or a page must not be given this."""
    text.encode()
    if "\x1b" in text:
        raise RuntimeError("an escape sequence came through")


def _strict(text: str) -> None:
    """Raises ValueError if this is no JSON as others read it, to whom NaN is none."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} in JSON")

    text.encode()
    json.loads(text, parse_constant=refuse)


def as_text() -> None:
    """`balloontrace report`, and with -v."""
    pictured = picture(_FUZZED)
    drawn = partial(timeline, course=pictured.timeline)
    _printable(report_text(pictured.report, verbose=True, timeline=drawn))
    _printable(first_screen(pictured.report, timeline=drawn))


def as_json() -> None:
    """`balloontrace report --json`."""
    _strict(report_json(build(_FUZZED)))


def as_page() -> None:
    """`balloontrace report --html`."""
    _printable(report_html(picture(_FUZZED)))


def as_still() -> None:
    """`balloontrace report --svg`."""
    figure(alone(picture(_FUZZED)), "svg")


def beside_another() -> None:
    """`balloontrace compare`, and `balloontrace report` of two."""
    fuzzed, whole = build(_FUZZED), build(_WHOLE)
    for sides in (([fuzzed], [whole]), ([whole], [fuzzed]), ([fuzzed, whole], [whole, fuzzed])):
        comparison = compare(*sides)
        _printable(compare_text(comparison))
        _strict(compare_json(comparison))
    reports: dict[str, Report | UserError] = {_FUZZED: fuzzed, _WHOLE: whole}
    _printable(overview_text(reports, False, WIDTH))
    _strict(overview_json(reports))


def as_page_of_two() -> None:
    """`balloontrace compare --html`."""
    pair = picture_pair(_FUZZED, _WHOLE)
    _printable(compare_html(compare(*([side.report] for side in pair)), *pair))


def as_tables() -> None:
    """`balloontrace export --csv` and `--parquet`."""
    trace = read_trace(_FUZZED)
    for write in (csv.write, parquet.write):
        with tempfile.TemporaryDirectory(dir=_DIRECTORY) as directory:
            write(trace, Path(directory), [])


def as_perfetto() -> None:
    """`balloontrace export --perfetto`."""
    perfetto.write(read_trace(_FUZZED), io.BytesIO())


def through_a_pipe() -> None:
    """As `balloontrace report --json -` reads: nothing can be read twice."""
    os.mkfifo(_PIPE)
    writer = threading.Thread(target=_feed, args=[Path(_FUZZED).read_bytes()])
    writer.start()
    try:
        _strict(report_json(build(_PIPE)))
    finally:
        writer.join()
        os.unlink(_PIPE)


def as_it_comes() -> None:
    """`balloontrace live`, of a stream."""
    model, lines = Model("stream"), Lines()
    data = Path(_FUZZED).read_bytes()
    for begin in range(0, len(data), _PIECE):
        model.feed(data[begin : begin + _PIECE], 0.0)
        view = model.view(1.0)
        _strict(json_lines.line(view))
        _printable(lines.of(view))
    model.close()
    _strict(json_lines.line(model.view(2.0, zoom_s=900)))


def _feed(data: bytes) -> None:
    with suppress(BrokenPipeError), open(_PIPE, "wb", buffering=0) as pipe:
        pipe.write(data)


QUICK: tuple[Callable[[], None], ...] = (
    *(as_text, as_json, as_tables, as_perfetto, beside_another),
    *(as_text, as_json, as_tables, as_perfetto, through_a_pipe, as_it_comes),
)
SLOW: tuple[Callable[[], None], ...] = (as_page, as_still, as_page_of_two)
USES = QUICK * 6 + SLOW
"""What is drawn takes seconds: that is done less often."""


def use(data: bytes) -> None:
    """What the fuzzer calls: nothing may come of it but a result, or a UserError."""
    dice = atheris.FuzzedDataProvider(data)
    how = pick(dice, USES)
    Path(_FUZZED).write_bytes(mutated(pick(dice, SEEDS), dice))
    began_s = time.process_time()
    try:
        how()
    except UserError as error:
        _printable(str(error))
    if (took_s := time.process_time() - began_s) > CPU_S:
        raise RuntimeError(f"{how.__name__} took {took_s:.1f} s")


def beginnings() -> str:
    """A directory of inputs to begin with: libFuzzer takes long to come to large ones from none."""
    directory, dice = _DIRECTORY / "corpus", random.Random(1)
    directory.mkdir()
    for number in range(_BEGINNINGS):
        (directory / str(number)).write_bytes(dice.randbytes(_INPUT_BYTES))
    return str(directory)


if __name__ == "__main__":
    warnings.simplefilter("error")
    atheris.Setup([*sys.argv, beginnings()], use)
    atheris.Fuzz()
