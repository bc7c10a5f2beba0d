// Charts as SVG, drawn anew when their place changes its width.

import { h, s } from "./dom.js";
import { number } from "./numbers.js";

const HEIGHT = 240;
const MARGIN = { top: 12, right: 12, bottom: 38, left: 64 };
const TICKS = { x: 6, y: 4 };
const SPREADS_SHOWN = 4; // below where the second half of training was
const BINS = 50;
const TAIL = 0.002; // of the draws, on each side

/** Return round numbers between two others, and how they are written. */
function ticks(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((times) => times * power >= rough);
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const plain = Math.max(Math.abs(low), Math.abs(high)) < 1e7 && decimals <= 6;
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high + step * 1e-9; k++) {
    found.push([k * step, plain ? (k * step).toFixed(decimals) : number(k * step, 3)]);
  }
  return found;
}

/** A place for a chart. `draw(width)` returns its shapes as SVG, and is called when needed. */
class Chart {
  constructor(label) {
    this.element = h("div", { class: "chart" });
    this.label = label;
    this.width = 0;
    new ResizeObserver(([entry]) => {
      const width = Math.round(entry.contentRect.width);
      if (width === this.width) return;
      this.width = width;
      this.redraw();
    }).observe(this.element);
  }

  redraw() {
    if (this.width === 0) return;
    const [shapes, words] = this.draw(this.width);
    this.element.replaceChildren(
      s("svg", {
        width: this.width, height: HEIGHT, role: "img", "aria-label": `${this.label}. ${words}`,
      }, shapes),
    );
  }

  /** Return axes for ranges, and functions from numbers to places. */
  axes(width, [xLow, xHigh], [yLow, yHigh], { xTitle, yTitle, yTicks = true }) {
    const left = yTicks ? MARGIN.left : MARGIN.right;
    const right = width - MARGIN.right;
    const bottom = HEIGHT - MARGIN.bottom;
    const x = (value) => left + ((value - xLow) / (xHigh - xLow)) * (right - left);
    const y = (value) => bottom - ((value - yLow) / (yHigh - yLow)) * (bottom - MARGIN.top);
    const shapes = [s("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom })];
    for (const [value, written] of ticks(xLow, xHigh, Math.min(TICKS.x, width / 80))) {
      shapes.push(
        s("text", { x: x(value), y: bottom + 16, "text-anchor": "middle" }, written),
        s("line", { class: "axis", x1: x(value), x2: x(value), y1: bottom, y2: bottom + 4 }),
      );
    }
    if (yTicks) {
      for (const [value, written] of ticks(yLow, yHigh, TICKS.y)) {
        shapes.push(
          s("line", { class: "grid", x1: left, x2: right, y1: y(value), y2: y(value) }),
          s("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, written),
        );
      }
      shapes.push(
        s("text", { x: 12, y: 0, transform: `translate(0 ${(bottom + MARGIN.top) / 2}) rotate(-90 12 0)`,
          "text-anchor": "middle" }, yTitle),
      );
    }
    shapes.push(s("text", { x: (left + right) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, xTitle));
    return { shapes, x, y, bottom };
  }
}

/** The ELBO over seconds of training. */
export class ElboChart extends Chart {
  constructor() {
    super("ELBO over seconds of training");
    this.points = [];
    this.asked = false;
  }

  clear() {
    this.points = [];
  }

  add(seconds, elbo) {
    if (elbo === null || !Number.isFinite(elbo)) return;
    this.points.push([seconds, elbo]);
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      this.redraw();
    });
  }

  draw(width) {
    if (this.points.length < 2) {
      return [[s("text", { x: width / 2, y: HEIGHT / 2, "text-anchor": "middle" },
        "Training has not begun yet.")], "Nothing yet."];
    }
    const late = this.points.slice(this.points.length >> 1).map((point) => point[1]);
    late.sort((a, b) => a - b);
    const [low, high] = [late[Math.floor(0.02 * late.length)], late.at(-1)];
    const spread = Math.max(high - low, 1e-4 * Math.max(Math.abs(high), 1));
    const lowest = this.points.reduce((least, point) => Math.min(least, point[1]), Infinity);
    const bottom = Math.max(lowest, low - SPREADS_SHOWN * spread) - spread / 2;
    const last = this.points.at(-1);
    const { shapes, x, y } = this.axes(
      width, [0, Math.max(last[0], 0.1)], [bottom, high + spread / 2],
      { xTitle: "seconds of training", yTitle: "ELBO (nats)" },
    );
    const shown = this.points.filter((point) => point[1] >= bottom);
    const path = shown.map(([t, elbo]) => `${x(t).toFixed(1)},${y(elbo).toFixed(1)}`).join(" ");
    shapes.push(s("polyline", { class: "fit", points: path }));
    return [shapes, `${number(last[1], 6)} nats after ${number(last[0], 3)} seconds.`];
  }
}

/**
 * A scalar's histogram: `fit` filled, `reference` as a line. Each is `{values, weights?}`, or null.
 * Both share their bins, which leave out the farthest draws, and nothing else.
 */
export class MarginalChart extends Chart {
  constructor() {
    super("Histogram of a scalar");
    this.name = "";
    this.sides = {};
  }

  show(name, sides) {
    this.name = name;
    this.label = `Histogram of ${name}`;
    this.sides = sides;
    this.redraw();
  }

  draw(width) {
    const sides = Object.entries(this.sides).filter(([, side]) => side?.values.length);
    if (!sides.length) {
      return [[s("text", { x: width / 2, y: HEIGHT / 2, "text-anchor": "middle" },
        `${this.name || "This scalar"} has no finite draws.`)], "No draws."];
    }
    const [low, high] = range(sides.map(([, side]) => side));
    const heights = sides.map(([kind, side]) => [kind, histogram(side, low, high)]);
    const top = Math.max(...heights.flatMap(([, bins]) => bins));
    const { shapes, x, y, bottom } = this.axes(
      width, [low, high], [0, top * 1.05], { xTitle: this.name, yTicks: false },
    );
    const step = (high - low) / BINS;
    for (const [kind, bins] of heights) {
      const corners = bins.flatMap((height, k) => [
        [x(low + k * step), y(height)], [x(low + (k + 1) * step), y(height)],
      ]);
      const path = [[x(low), bottom], ...corners, [x(high), bottom]]
        .map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join(" ");
      shapes.push(s("polyline", { class: `histogram ${kind}`, points: path }));
    }
    return [shapes, `Nearly all draws are between ${number(low)} and ${number(high)}.`];
  }
}

function range(sides) {
  const ends = sides.map(({ values }) => {
    const sorted = Float64Array.from(values).sort();
    const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
    const [left, right] = [at(0.05), at(0.95)];
    return [Math.max(at(TAIL), left - (right - left)), Math.min(at(1 - TAIL), right + (right - left))];
  });
  const low = Math.min(...ends.map((end) => end[0]));
  const high = Math.max(...ends.map((end) => end[1]));
  const pad = high > low ? 0 : Math.max(Math.abs(low), 1) / 2;
  return [low - pad, high + pad];
}

function histogram({ values, weights }, low, high) {
  const bins = new Array(BINS).fill(0);
  let total = 0;
  values.forEach((value, draw) => {
    const weight = weights ? weights[draw] : 1;
    total += weight;
    const bin = Math.floor(((value - low) / (high - low)) * BINS);
    if (bin >= 0 && bin < BINS) bins[bin] += weight;
    else if (value === high) bins[BINS - 1] += weight;
  });
  return bins.map((weight) => weight / total);
}
