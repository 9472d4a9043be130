# SPDX-License-Identifier: Apache-2.0
"""The pages that are opened most, as a browser shows them: read, fold, point, zoom."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from balloontrace.analysis.compare import compare
from balloontrace.analysis.html.report import compare_html, report_html
from balloontrace.analysis.timeline.picture import Picture, picture, picture_pair
from balloontrace.analysis.timeline.series import SIZE, alone
from balloontrace.analysis.timeline.tooltip import readout
from balloontrace.recording.reader import read_recording
from tests.unit.analysis.html.browser import Scheme, Shown, chromium, opened
from tests.unit.builders import Built, ns

# One browser, and each page made once.
pytestmark = pytest.mark.xdist_group("browser")

DATA = Path(__file__).parents[3] / "data"
TOUR = DATA / "6.1-tour.btrace"

LEAST_CONTRAST = 4.5
"""Of text with its ground: WCAG 2.1, success criterion 1.4.3, level AA."""

HOUR_S = 3600


@dataclass
class Made:
    """The pages as files, and what two of them were made from."""

    paths: dict[str, Path]
    pictures: dict[str, Picture]


def day() -> Built:
    """Each hour the balloon takes nearly 10 GiB, and gives them back later."""
    built = Built()
    sample = next(s for s in read_recording(str(TOUR)).samples if "vmstat" in s)
    for minute in range(24 * 60):
        psi = {"memory": {"some_us": minute * 10**6, "full_us": minute * 10**5}}
        built.samples.append({**sample, "t_ns": ns(minute * 60), "psi": psi})
    for hour in range(24):
        up, down = hour * HOUR_S + 600, hour * HOUR_S + 2400
        built.target(up, 2_500_000, 0).target(down, 0, 2_500_000)
        for chunk in range(100):
            built.fill(up + chunk * 0.9, 0.5, 25_000)
            built.leak(down + chunk * 0.5, 0.5, 25_000, within="worker leak")
    return built.ends(24 * HOUR_S)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    directory = tmp_path_factory.mktemp("pages")
    pictures = {
        "report": picture(str(TOUR)),
        "day": picture(day().write(directory / "day.btrace")),
    }
    pair = picture_pair(
        str(DATA / "6.1-shrinker-reclaim.btrace"), str(DATA / "6.1-stock-idle.btrace")
    )
    texts = {name: report_html(drawn) for name, drawn in pictures.items()}
    texts["compare"] = compare_html(compare(*(p.report for p in pair)), *pair)
    paths = {name: directory / f"{name}.html" for name in texts}
    for name, path in paths.items():
        path.write_text(texts[name])
    return Made(paths, pictures)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def shown(request: pytest.FixtureRequest, browser: Browser, made: Made) -> Iterator[Shown]:
    """The page that a test asks for by its name, or the report's."""
    with opened(browser, made.paths[getattr(request, "param", "report")]) as page:
        yield page
        assert page.complaints == []


def rgb(colour: str) -> tuple[int, int, int]:
    """Of #rrggbb."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


@pytest.mark.parametrize(
    ("width", "schemes"), [(700, ("dark", "light")), (1400, ("light", "dark"))]
)
@pytest.mark.parametrize("name", ["report", "compare", "day"])
def test_a_page_can_be_read_on_either_ground(
    browser: Browser, made: Made, name: str, width: int, schemes: tuple[Scheme, Scheme]
) -> None:
    # The second ground comes while the page is open.
    with opened(browser, made.paths[name], width, schemes[0]) as shown:
        for scheme in schemes:
            shown.change_ground(scheme)
            assert shown.overflow_px() <= 0
            assert shown.cut() == []
            contrasts = shown.contrasts()
            assert {"h1", "h2", "th", "td", "a"} <= {element for element, _, _ in contrasts}
            assert [text for text in contrasts if text[2] < LEAST_CONTRAST] == []
            panels = shown.panels()
            # One guest, of the report and of one side, refaulted, and has a panel more.
            assert len(panels) == {"compare": 11, "report": 6}.get(name, 5)
            assert [panel for panel, seen in panels.items() if len(seen) < 3] == []
            curve, other = (SIZE.light, SIZE.dark) if scheme == "light" else (SIZE.dark, SIZE.light)
            for panel in ("size-before", "size-after") if name == "compare" else ("size",):
                assert panels[panel].get(rgb(curve), 0) > 200
                assert rgb(other) not in panels[panel]
        # The time axes stand above each other.
        assert len(set(shown.frames())) == 1
        assert shown.complaints == []


def test_without_scripts_there_is_the_still_and_every_number(browser: Browser, made: Made) -> None:
    with opened(browser, made.paths["report"], java_script_enabled=False) as shown:
        assert shown.page.locator(".still").is_visible()
        assert not shown.page.locator(".live").is_visible()
        assert shown.page.get_by_text("superseded", exact=True).is_visible()


def test_sections_fold_and_the_contents_lead_to_them(shown: Shown) -> None:
    heading = shown.page.locator("summary", has_text="Latencies")
    bar = shown.page.locator(".bar").first
    shown.page.get_by_role("navigation").get_by_text("Latencies").click()
    expect(heading).to_be_in_viewport()
    expect(bar).to_be_visible()
    heading.click()
    expect(bar).to_be_hidden()
    heading.press("Enter")
    expect(bar).to_be_visible()


def test_the_bars_of_a_histogram_are_as_long_as_their_numbers_say(shown: Shown) -> None:
    histogram = shown.page.locator(".histogram", has=shown.page.get_by_text("fill", exact=True))
    widths: dict[int, float] = {}
    for row in histogram.locator("tbody tr").all():
        calls = int(row.locator("td").nth(1).inner_text().replace(",", ""))
        box = row.locator(".bar").bounding_box()
        assert box is not None
        widths[calls] = box["width"]
    most = max(widths)
    assert len(widths) > 4
    for calls, width in widths.items():
        assert width == pytest.approx(max(2, widths[most] * calls / most), abs=0.5)


CHOOSE: dict[str, Callable[[Shown, int], None]] = {
    "the row": lambda shown, place: (
        shown.page.locator("tr:has(a[data-start])").nth(place).locator("td").nth(5).click()
    ),
    "the number": lambda shown, place: shown.page.locator("a[data-start]").nth(place).click(),
    "the keyboard": lambda shown, place: (
        shown.page.locator("a[data-start]").nth(place).press("Enter")
    ),
}


@pytest.mark.parametrize(
    ("shown", "how"),
    [("report", "the row"), ("day", "the number"), ("report", "the keyboard")],
    indirect=["shown"],
)
def test_an_episode_is_shown_in_the_timeline_and_there_is_a_way_back(
    shown: Shown, made: Made, how: str
) -> None:
    name = Path(shown.page.url).stem
    episodes = made.pictures[name].report.results["episodes"].tables["episodes"]
    place = max(range(len(episodes)), key=lambda i: episodes[i]["end_s"] - episodes[i]["start_s"])
    begin, end = episodes[place]["start_s"], episodes[place]["end_s"]
    whole = shown.times()
    CHOOSE[how](shown, place)
    first, last = shown.await_times(f"end - start < {whole[1] - whole[0]}")
    assert first < begin
    assert end < last
    assert last - first == pytest.approx((end - begin) * 1.2)
    expect(shown.page.locator("#size")).to_be_in_viewport()
    assert shown.page.locator("a[aria-current]").inner_text() == str(place + 1)
    shown.page.go_back()
    expect(shown.page.locator("a[data-start]").nth(place)).to_be_in_viewport()
    shown.page.get_by_role("button", name="all").click()
    assert shown.await_times(f"end - start >= {whole[1] - whole[0]}") == whole
    assert shown.page.locator("a[aria-current]").count() == 0


def test_an_episode_of_no_length_is_shown_with_what_is_around_it(shown: Shown) -> None:
    link = shown.page.locator("a[data-start]").first
    link.evaluate("link => { link.dataset.start = link.dataset.end = '0' }")
    whole = shown.times()
    link.click()
    first, last = shown.await_times(f"end < {whole[1]}")
    assert first == whole[0]
    assert 0 < last - first < (whole[1] - whole[0]) / 1000


def test_the_wheel_zooms_with_ctrl_and_scrolls_without(shown: Shown) -> None:
    begin, end = shown.times()
    moment = begin + (end - begin) / 4
    shown.page.mouse.move(*shown.place("size", moment))
    scrolled: int = shown.page.evaluate("scrollY")
    shown.page.mouse.wheel(0, 200)
    shown.page.wait_for_function(f"() => scrollY > {scrolled}")
    assert shown.times() == (begin, end)
    shown.page.mouse.move(*shown.place("size", moment))
    shown.page.keyboard.down("Control")
    shown.page.mouse.wheel(0, -300)
    shown.page.keyboard.up("Control")
    first, last = shown.await_times(f"end - start < {end - begin}")
    assert first < moment < last


@pytest.mark.parametrize("shown", ["compare"], indirect=True)
def test_dragging_over_a_panel_zooms_all_of_them_to_that(shown: Shown) -> None:
    begin, end = shown.times()
    wanted = [begin + (end - begin) * share for share in (0.5, 0.75)]
    before = shown.panels()
    (x, y), (to_x, _) = (shown.place("size-after", moment) for moment in wanted)
    shown.page.mouse.move(x, y)
    shown.page.mouse.down()
    shown.page.mouse.move(to_x, y, steps=5)
    shown.page.mouse.up()
    times = shown.await_times(f"end - start < {end - begin}")
    assert times == pytest.approx(wanted, abs=(end - begin) / 500)
    after = shown.panels()
    assert [panel for panel in before if before[panel] == after[panel]] == []


@pytest.mark.parametrize("shown", ["report", "day"], indirect=True)
def test_pointing_at_an_interval_shows_its_numbers(shown: Shown, made: Made) -> None:
    name = Path(shown.page.url).stem
    (scene,) = alone(made.pictures[name])
    words = readout(scene)
    # The interval in which most pages went in, close enough for a pointer to hit.
    place = int(scene.flow()["in"].argmax())
    middle = (words["start"][place] + words["end"][place]) / 2
    shown.page.evaluate(
        "([start, end]) => Bokeh.documents[0].get_model_by_name('times').setv({ start, end })",
        [middle - 5 * scene.bin_s, middle + 5 * scene.bin_s],
    )
    shown.await_times(f"end - start < {11 * scene.bin_s}")
    tooltip = shown.page.locator(".bk-Tooltip")
    assert tooltip.count() == 0
    shown.page.mouse.move(*shown.place("size", middle))
    expect(tooltip).to_have_count(1)
    for key in ("seconds", "size at its end", "in", "PSI memory", "memory"):
        expect(tooltip.get_by_text(words[key][place], exact=True).first).to_be_visible()
    box = tooltip.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 1400
    shown.page.mouse.move(1, 1)
    expect(tooltip).to_have_count(0)
