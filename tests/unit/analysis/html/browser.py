# SPDX-License-Identifier: Apache-2.0
"""A page of ours in Debian's Chromium, and what a person would see of it."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

Scheme = Literal["light", "dark"]

Colours = dict[tuple[int, ...], int]
"""Colour -> how many pixels have it."""

TIMEOUT_MS = 20_000
"""For a condition to become true: the machine may be busy with guests."""

_READY = "() => document.querySelector('.range').textContent && Bokeh.documents[0].is_idle"

_FRAMES = """() => Bokeh.documents[0].roots().map((figure) => {
  const { left, right } = Bokeh.index.get_by_id(figure.id).frame.bbox;
  return [left, right];
})"""

# Of each panel its name, and left, top, right and bottom within the picture of the timeline.
_BOXES = """() => {
  const whole = document.getElementById("timeline").getBoundingClientRect();
  return [...document.querySelectorAll(".plot")].map((plot) => {
    const { left, top, right, bottom } = plot.getBoundingClientRect();
    const box = [left - whole.x, top - whole.y, right - whole.x, bottom - whole.y];
    return [plot.id, box.map(Math.round)];
  });
}"""

# Of each text that can be seen: how it stands out from what is behind it, as WCAG 2.1 defines it.
_CONTRASTS = """() => {
  const parts = (colour) => {
    const [red, green, blue, alpha = 1] = colour.match(/[\\d.]+/g).map(Number);
    return [red, green, blue, alpha];
  };
  const luminance = (colour) => {
    const [red, green, blue] = colour.map((part) => {
      const share = part / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const over = (above, below) =>
    [0, 1, 2].map((i) => above[i] * above[3] + below[i] * (1 - above[3]));
  const ground = (element) => {
    if (!element) return [255, 255, 255];
    const own = parts(getComputedStyle(element).backgroundColor);
    return own[3] === 1 ? own.slice(0, 3) : over(own, ground(element.parentElement));
  };
  const found = [];
  for (const element of document.body.querySelectorAll("*")) {
    const said = [...element.childNodes].filter((node) => node.nodeType === Node.TEXT_NODE)
      .map((node) => node.textContent.trim()).join(" ").trim();
    if (!said || !element.checkVisibility({ visibilityProperty: true })) continue;
    const below = ground(element);
    const own = over(parts(getComputedStyle(element).color), below);
    const [dim, bright] = [luminance(own), luminance(below)].sort((a, b) => a - b);
    found.push([element.localName, said.slice(0, 40), (bright + 0.05) / (dim + 0.05)]);
  }
  return found;
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's browser. Raises FileNotFoundError if it is not there: nothing is skipped."""
    path = shutil.which("chromium")
    if path is None:
        raise FileNotFoundError("there is no chromium: tools/setup installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@dataclass
class Shown:
    """A page that is open. complaints: errors and warnings of its scripts, and whatever it
    wanted from elsewhere."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def times(self) -> tuple[float, float]:
        """Begin and end of what the timeline shows, in seconds."""
        start, end = self.page.evaluate(
            "() => { const { start, end } = Bokeh.documents[0].get_model_by_name('times');"
            " return [start, end]; }"
        )
        return start, end

    def await_times(self, condition: str) -> tuple[float, float]:
        """The same as soon as a condition of `start` and `end` in JavaScript is true, and all of it
        is drawn."""
        self.page.wait_for_function(
            "() => { const { start, end } = Bokeh.documents[0].get_model_by_name('times');"
            f" return ({condition}) && Bokeh.documents[0].is_idle; }}"
        )
        return self.times()

    def frames(self) -> list[tuple[float, float]]:
        """Left and right edge of each panel's time axis, in pixels of the panel."""
        return [(left, right) for left, right in self.page.evaluate(_FRAMES)]

    def contrasts(self) -> list[tuple[str, str, float]]:
        """Of each text that can be seen: element, what it says, contrast with its ground."""
        return [(name, said, ratio) for name, said, ratio in self.page.evaluate(_CONTRASTS)]

    def overflow_px(self) -> int:
        """By how much the page is wider than the window."""
        wider: int = self.page.evaluate(
            "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return wider

    def change_ground(self, scheme: Scheme) -> None:
        """Light or dark, as the browser is told to prefer."""
        self.page.emulate_media(color_scheme=scheme)
        self.page.wait_for_function("() => Bokeh.documents[0].is_idle")

    def panels(self) -> dict[str, Colours]:
        """What each panel of the timeline looks like. The picture is not kept."""
        whole = self.page.locator("#timeline")
        image = Image.open(io.BytesIO(whole.screenshot())).convert("RGB")
        found = {}
        for name, box in self.page.evaluate(_BOXES):
            part = image.crop(box)
            counted = part.getcolors(part.width * part.height) or []
            found[name] = {
                colour: number for number, colour in counted if isinstance(colour, tuple)
            }
        return found

    def cut(self) -> list[str]:
        """How each table begins that must be scrolled sideways."""
        begins: list[str] = self.page.evaluate(
            "() => [...document.querySelectorAll('.wide, .histogram')]"
            ".filter((table) => table.scrollWidth > table.clientWidth)"
            ".map((table) => table.innerText.slice(0, 40))"
        )
        return begins

    def place(self, panel: str, at_s: float) -> tuple[float, float]:
        """Where on the screen a moment stands in the middle of a panel; it is scrolled there."""
        plot = self.page.locator(f"#{panel}")
        plot.scroll_into_view_if_needed()
        box = plot.bounding_box()
        assert box is not None
        (left, right), (start, end) = self.frames()[0], self.times()
        x = box["x"] + left + (at_s - start) / (end - start) * (right - left)
        return x, box["y"] + box["height"] / 2


@contextmanager
def opened(
    browser: Browser, path: Path, width: int = 1400, scheme: Scheme = "light", **more: Any
) -> Iterator[Shown]:
    """A page from a file in a window of its own, with its timeline drawn. more: as Playwright's
    new_context takes it."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True, **more
    )
    context.set_default_timeout(TIMEOUT_MS)
    shown = Shown(context.new_page())
    note = shown.complaints.append
    shown.page.on("pageerror", lambda error: note(str(error)))
    shown.page.on(
        "console", lambda said: note(said.text) if said.type in ("error", "warning") else None
    )
    shown.page.on(
        "request",
        lambda asked: (
            note(asked.url) if not asked.url.startswith(("file:", "data:", "blob:")) else None
        ),
    )
    shown.page.goto(path.as_uri())
    if more.get("java_script_enabled", True):
        shown.page.wait_for_function(_READY)
    yield shown
    context.close()
