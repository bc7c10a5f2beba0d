// The table of scalars: filtered by name, and a row chosen.

import { h } from "./dom.js";
import { number } from "./numbers.js";

const ROWS_SHOWN = 200;
const FIT_COLUMNS = ["Mean", "StdDev", "5%", "50%", "95%"];

export class ScalarTable {
  /**
   * `scalars` and, of a fit, `weighted`, the same of its weighted draws, are rows;
   * `choose(name)` is told of a click.
   */
  constructor(scalars, { weighted = null, preferWeighted = false, choose }) {
    this.scalars = scalars;
    this.weighted = weighted;
    this.choose = choose;
    this.reference = null;
    this.chosen = null;
    this.filter = h("input", {
      type: "search", id: "filter", placeholder: "for instance theta", oninput: () => this.#fill(),
    });
    this.byWeight = h("input", {
      type: "checkbox", id: "weighted", checked: preferWeighted, onchange: () => this.#fill(),
    });
    this.table = h("table", {});
    this.rest = h("p", { class: "soft" });
    this.element = h("section", { "aria-label": "Scalars" },
      h("div", { class: "filter" },
        h("label", { for: "filter" }, "Names that contain"), this.filter,
        ...(weighted ? [h("label", {}, this.byWeight, " importance-weighted")] : [])),
      h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of scalars" },
        this.table),
      this.rest,
    );
    this.#fill();
  }

  /** Show the scalars of a reference beside. */
  compareWith(scalars) {
    this.reference = new Map(scalars.map((row) => [row.name, row]));
    this.#fill();
  }

  /** Mark a scalar as the one that is looked at. */
  mark(name) {
    this.chosen = name;
    for (const button of this.table.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", button.textContent === name);
    }
  }

  #fill() {
    const wanted = this.filter.value.trim().toLowerCase();
    const rows = this.byWeight.checked && this.weighted ? this.weighted : this.scalars;
    const found = rows.filter((row) => row.name.toLowerCase().includes(wanted));
    const shown = found.slice(0, ROWS_SHOWN);
    const extra = this.reference ? ["NUTS mean", "NUTS sd"] : this.#ownColumns();
    const head = h("tr", {}, h("th", { scope: "col" }, "scalar"),
      [...FIT_COLUMNS, ...extra].map((name) => h("th", { scope: "col", class: "number" }, name)));
    this.table.replaceChildren(h("thead", {}, head), h("tbody", {}, shown.map((row) => this.#row(row, extra))));
    const hidden = found.length - shown.length;
    this.rest.textContent = hidden ? `${hidden} more: narrow them down by name.`
      : found.length ? "" : "No scalar has such a name.";
    this.mark(this.chosen);
  }

  #ownColumns() {
    return Object.keys(this.scalars[0] ?? {}).filter((key) => ["R_hat", "ESS_bulk"].includes(key));
  }

  #row(row, extra) {
    const other = this.reference?.get(row.name);
    const more = this.reference ? [other?.Mean, other?.StdDev] : extra.map((key) => row[key]);
    return h("tr", {},
      h("th", { scope: "row" },
        h("button", { type: "button", class: "link", onclick: () => this.choose(row.name) }, row.name)),
      [...FIT_COLUMNS.map((key) => row[key]), ...more].map((value) => h("td", { class: "number" }, number(value))),
    );
  }
}
