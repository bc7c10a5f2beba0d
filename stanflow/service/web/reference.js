// A NUTS run beside a fit: begun, waited for, and compared.

import { download, follow, get, post } from "./api.js";
import { modelOf } from "./compose.js";
import { h } from "./dom.js";
import { duration } from "./numbers.js";
import { verdictBlock } from "./verdict.js";

const JOBS_LOOKED_AT = 1000;

export class Reference {
  /** `found(run)` is told of the NUTS run when there is one. */
  constructor(fit, { found, changed, signal }) {
    this.fit = fit;
    this.found = found;
    this.changed = changed;
    this.signal = signal;
    this.place = h("div", { "aria-live": "polite" });
    this.element = h("section", { "aria-labelledby": "reference-title" },
      h("h2", { id: "reference-title" }, "Against NUTS"), this.place);
  }

  /** Show the comparison that there is, wait for one under way, or offer one. */
  async open() {
    const { operations } = await get(`operations?limit=${JOBS_LOOKED_AT}`, this.signal);
    const comparison = operations.find(
      (job) => job.kind === "comparison" && job.options.fit === this.fit.id && job.status !== "cancelled");
    if (comparison) {
      await this.#compared(comparison);
      return;
    }
    const runs = operations.filter((job) => job.kind === "nuts" && job.model === this.fit.model
      && !["failed", "cancelled"].includes(job.status));
    this.#offer(runs);
  }

  #offer(runs) {
    const begin = h("button", { type: "button", onclick: () => this.#try(() => this.#begin()) }, "Run NUTS");
    const choice = h("select", { id: "reference-run" }, runs.map((run) =>
      h("option", { value: run.id }, `${run.name}, seed ${run.options.seed}, ${run.id}`)));
    const use = h("button", {
      type: "button", onclick: () => this.#try(() => this.#wait(choice.value)),
    }, "Compare");
    this.place.replaceChildren(
      h("p", {}, "Draw from the same program and data by Stan's NUTS, and see both side by side."),
      h("p", { class: "buttons" }, begin),
      ...(runs.length ? [h("p", { class: "buttons" },
        h("label", { for: choice.id }, "or take an earlier run"), choice, use)] : []),
    );
  }

  async #try(what) {
    try {
      await what();
    } catch (error) {
      if (error.name === "AbortError") return;
      this.place.append(h("p", { class: "problem", role: "alert" }, error.message));
    }
  }

  async #begin() {
    const task = await get(`operations/${this.fit.id}/task`);
    const model = await modelOf({ ...task, model: this.fit.model });
    const { seed } = task.options;
    const run = await post(`models/${model}/nuts`, { data: task.data, options: { seed } });
    this.changed();
    await this.#wait(run.id);
  }

  async #wait(run) {
    const operation = await this.#until(run, "NUTS");
    if (operation.status !== "succeeded") {
      this.#failed("NUTS", operation);
      return;
    }
    this.found(await get(`nuts/${run}`, this.signal));
    const comparison = await post("comparisons", { fit: this.fit.id, reference: run });
    this.changed();
    await this.#compared(comparison, false);
  }

  async #compared(job, withDraws = true) {
    const operation = await this.#until(job.id, "The comparison");
    if (operation.status !== "succeeded") {
      this.#failed("The comparison", operation);
      return;
    }
    if (withDraws) {
      const run = job.options.reference;
      try {
        this.found(await get(`nuts/${run}`, this.signal));
      } catch (error) {
        if (error.status !== 404) throw error; // the run was deleted, the comparison not
      }
    }
    const { result } = await get(`comparisons/${job.id}`, this.signal);
    this.place.replaceChildren(...comparisonBlocks(job, result));
  }

  #failed(what, operation) {
    this.place.replaceChildren(h("p", { class: "problem" },
      `${what} ${operation.status}${operation.failure ? `: ${operation.failure.detail}` : ""}`),
    h("p", { class: "buttons" },
      h("button", { type: "button", onclick: () => this.#try(() => this.#begin()) }, "Run NUTS again")));
  }

  /** Wait for a job, and say how long it has taken. */
  async #until(job, what) {
    let operation = await get(`operations/${job}`, this.signal);
    const said = h("p", {}, `${what}: ${operation.status}…`);
    this.place.replaceChildren(said);
    const clock = setInterval(() => {
      const since = operation.started ? (Date.now() - new Date(operation.started)) / 1000 : null;
      said.textContent = `${what}: ${operation.status}${since === null ? "…" : `, ${duration(since)}`}`;
    }, 1000);
    try {
      await follow(job, {
        onstart() {}, onstep() {}, onoperation: (told) => (operation = told),
      }, this.signal);
    } finally {
      clearInterval(clock);
    }
    this.changed();
    return operation;
  }
}

/** What a comparison says, and its report. */
export function comparisonBlocks(job, result) {
  return [
    ...(result.cautions?.length ? [h("div", { class: "caution" },
      h("p", {}, h("b", {}, "What speaks against the draws of NUTS themselves")),
      h("ul", {}, result.cautions.map((caution) => h("li", {}, caution))))] : []),
    verdictBlock(result.agreement, { headline: result.headline, reasons: result.notes }),
    h("p", { class: "buttons" },
      h("button", {
        type: "button", onclick: () => download(`comparisons/${job.id}/report`, `${job.name}-comparison.html`),
      }, "Download the comparison")),
  ];
}
