"use strict";
// Draws the panels, gives them the colours of the page's ground, and moves their time axis.
(async () => {
  const { chart, colours } = JSON.parse(document.getElementById("data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 600px)");

  await Bokeh.embed.embed_items(chart.docs, chart.items);
  const drawn = Bokeh.documents[Bokeh.documents.length - 1];
  const figures = drawn.roots();
  const times = figures[0].x_range;
  const [first, last] = times.bounds;

  const paint = () => {
    for (const [id, property, light, darker] of colours) {
      drawn.get_model_by_id(id).setv({ [property]: dark.matches ? darker : light });
    }
  };
  dark.addEventListener("change", paint);
  paint();

  // The second axis takes room that a telephone does not have.
  const wide = figures[0].min_border_right;
  const fit = () => {
    for (const figure of figures) {
      for (const axis of figure.right) axis.visible = !narrow.matches;
      figure.min_border_right = narrow.matches ? 10 : wide;
    }
  };
  narrow.addEventListener("change", fit);
  fit();

  // A finger that is dragged scrolls the page.
  if (matchMedia("(pointer: coarse)").matches) {
    for (const figure of figures) figure.toolbar.active_drag = null;
    for (const tool of drawn._all_models.values()) {
      if (tool.type === "BoxZoomTool") tool.active = false;
    }
  }

  const range = document.querySelector(".range");
  const show = () => {
    const digits = Math.max(0, Math.min(6, 2 - Math.floor(Math.log10(times.end - times.start))));
    const [start, end] = [times.start, times.end].map((time) =>
      time.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
    range.textContent = `${start} to ${end} s`;
  };
  times.change.connect(show);
  show();

  // A row that is about a span of time shows it, with a tenth of it on either side. That the page
  // goes to the timeline, and the browser's way back, are the link's own.
  const links = document.querySelectorAll("a[data-start]");
  const look = (link) => {
    const [start, end] = [Number(link.dataset.start), Number(link.dataset.end)];
    const width = Math.max((end - start) * 1.2, times.min_interval);
    const from = Math.min(Math.max(first, (start + end - width) / 2), last - width);
    times.setv({ start: Math.max(first, from), end: Math.min(last, from + width) });
    link.setAttribute("aria-current", "true");
  };
  times.change.connect(() => {
    for (const link of links) link.removeAttribute("aria-current");
  });
  for (const link of links) {
    link.addEventListener("click", () => look(link));
    link.closest("tr").addEventListener("click", (event) => {
      if (!event.target.closest("a") && getSelection().isCollapsed) link.click();
    });
  }

  const moves = {
    in: (start, end, width) => [start + width / 4, end - width / 4],
    out: (start, end, width) => [start - width / 2, end + width / 2],
    left: (start, end, width) => [start - Math.min(width / 2, start - first), end - Math.min(width / 2, start - first)],
    right: (start, end, width) => [start + Math.min(width / 2, last - end), end + Math.min(width / 2, last - end)],
    all: () => [first, last],
  };
  for (const button of document.querySelectorAll("button[data-zoom]")) {
    button.addEventListener("click", () => {
      const [start, end] = moves[button.dataset.zoom](times.start, times.end, times.end - times.start);
      if (end - start >= times.min_interval) {
        times.setv({ start: Math.max(first, start), end: Math.min(last, end) });
      }
    });
  }
})();
