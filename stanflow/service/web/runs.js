// All jobs, the newest first.

import { get, remove } from "./api.js";
import { confirmed, h } from "./dom.js";
import { ago } from "./numbers.js";
import { badge } from "./verdict.js";

const SECONDS = { busy: 2, idle: 15 };
const SHOWN_AT_FIRST = 50;
const RESOURCES = { fit: "fits", nuts: "nuts", comparison: "comparisons" };

export class RunsList {
  constructor(element, { deleted }) {
    this.element = element;
    this.deleted = deleted;
    this.current = null;
    this.limit = SHOWN_AT_FIRST;
    this.shown = "";
    document.addEventListener("visibilitychange", () => this.refresh());
  }

  /** Mark the one that is looked at. */
  mark(id) {
    this.current = id;
    for (const link of this.element.querySelectorAll("a")) {
      if (link.hash === `#/runs/${id}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  }

  /** Ask the server, now and then again. */
  async refresh() {
    clearTimeout(this.timer);
    if (document.hidden) return;
    let busy = false;
    try {
      const { operations } = await get(`operations?limit=${this.limit + 1}`);
      busy = operations.some((operation) => !operation.done);
      this.#show(operations);
    } catch (error) {
      this.shown = "";
      this.element.replaceChildren(h("p", { class: "problem" }, error.message));
    }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.refresh(), 1000 * (busy ? SECONDS.busy : SECONDS.idle));
  }

  #show(operations) {
    const rows = operations.slice(0, this.limit);
    const shown = JSON.stringify(rows.map((row) => [row.id, row.status, ago(row.created)]));
    if (shown === this.shown) return; // a list that is replaced loses the keyboard's place
    this.shown = shown;
    const place = this.element.contains(document.activeElement) ? document.activeElement.dataset.place : null;
    const more = operations.length > this.limit
      ? [h("button", { type: "button", "data-place": "more", onclick: () => this.#more() }, "Show more")] : [];
    this.element.replaceChildren(
      rows.length ? h("ul", { class: "runs" }, rows.map((row) => this.#row(row)))
        : h("p", { class: "soft" }, "None yet."),
      ...more,
    );
    this.mark(this.current);
    if (place) this.element.querySelector(`[data-place="${place}"]`)?.focus();
  }

  #more() {
    this.limit = Math.min(2 * this.limit, 999);
    this.refresh();
  }

  #row(row) {
    const what = row.kind === "nuts" ? "NUTS" : row.kind;
    const remover = row.done ? h("button", {
      type: "button", class: "remove", "data-place": `delete-${row.id}`,
      "aria-label": `Delete the ${what} of ${row.name}, ${ago(row.created)}`,
      onclick: () => this.#delete(row, what),
    }, "×") : null;
    return h("li", {},
      h("a", { href: `#/runs/${row.id}`, "data-place": row.id },
        h("b", {}, row.name), badge(row),
        h("span", { class: "soft" }, `${what}, ${ago(row.created)}`)),
      remover);
  }

  async #delete(row, what) {
    if (!(await confirmed(`Delete this ${what} of ${row.name}, with its draws?`, "Delete"))) return;
    try {
      await remove(`${RESOURCES[row.kind]}/${row.id}`);
    } catch (error) {
      if (error.status !== 404) throw error;
    }
    await this.refresh();
    this.deleted(row.id);
  }
}
