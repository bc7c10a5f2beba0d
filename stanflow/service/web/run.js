// A job and what came of it.

import { download, follow, get, remove, save, text } from "./api.js";
import { ElboChart, MarginalChart } from "./chart.js";
import { takeUp } from "./compose.js";
import { confirmed, h } from "./dom.js";
import { compilerOutput } from "./editor.js";
import { count, duration, fixed, number } from "./numbers.js";
import { Reference, comparisonBlocks } from "./reference.js";
import { Refining, estimatorOf, figuresOfRefined, movesOf } from "./refining.js";
import { ScalarTable } from "./table.js";
import { badge, figures, verdictBlock } from "./verdict.js";

const KINDS = { fit: "fit", nuts: "NUTS run", comparison: "comparison" };
const RESOURCES = { fit: "fits", nuts: "nuts", comparison: "comparisons" };
const DRAWS_SHOWN = 10_000;
const POINTS_SHOWN = 1000;

export class RunView {
  constructor(id, { changed, left }) {
    this.id = id;
    this.changed = changed;
    this.left = left;
    this.closing = new AbortController();
    this.state = h("span", { "aria-live": "polite" });
    this.heading = h("h1", {}, "…");
    this.body = h("div", {});
    this.element = h("article", {}, h("div", { class: "run-head" }, this.heading, this.state), this.body);
    this.title = "Run";
  }

  close() {
    this.closing.abort();
  }

  get url() {
    return `${RESOURCES[this.operation.kind]}/${this.id}`;
  }

  async open() {
    await this.#turnTo(await get(`operations/${this.id}`, this.closing.signal));
    if (this.operation.done) return;
    await follow(this.id, {
      onstart: () => this.elbo?.clear(),
      onstep: (step) => this.#step(step),
      onoperation: (operation) => this.#turnTo(operation),
    }, this.closing.signal);
  }

  async #turnTo(operation) {
    if (this.operation?.status === operation.status) return;
    this.operation = operation;
    this.title = `${operation.name}, ${KINDS[operation.kind]}`;
    document.title = `${this.title} · StanFlow`;
    this.heading.replaceChildren(operation.name, " ", h("span", { class: "soft" }, KINDS[operation.kind]));
    this.state.replaceChildren(badge(operation));
    this.changed();
    if (!operation.done) this.#showWork();
    else if (operation.status === "succeeded") await this.#showResult();
    else this.#showFailure();
  }

  // ---- Under way ------------------------------------------------------------------------------

  #showWork() {
    const waits = this.operation.status === "queued";
    this.elbo ??= new ElboChart();
    this.told = figures([["step", "–"], ["training", "–"], ["ELBO", "–"], ["rejected draws", "–"]]);
    this.refining = new Refining();
    this.body.replaceChildren(
      ...(this.operation.kind === "fit" ? [this.elbo.element, this.told, this.refining.element]
        : [h("p", {}, waits ? "It waits for its turn." : "It is being made.")]),
      h("p", { class: "buttons" },
        h("button", { type: "button", onclick: () => this.#cancel() }, "Cancel"),
        ...this.#again()),
    );
  }

  #step({ step, seconds, elbo, rejected, refine }) {
    this.refining.show(refine);
    if (!refine) this.elbo.add(seconds, elbo);
    const values = [count(step), duration(seconds), elbo === null ? "not finite" : fixed(elbo, 2), count(rejected)];
    this.told.querySelectorAll("dd").forEach((place, k) => (place.textContent = values[k]));
  }

  async #cancel() {
    await this.#turnTo(await this.#try(async () => {
      await remove(`operations/${this.id}`);
      return get(`operations/${this.id}`);
    }) ?? this.operation);
  }

  // ---- Done -----------------------------------------------------------------------------------

  #showFailure() {
    const { failure, status } = this.operation;
    this.body.replaceChildren(
      failure
        ? h("div", { class: "problem", role: "alert" }, h("p", {}, failure.detail),
          failure.output ? compilerOutput(failure.output) : null)
        : h("p", {}, `It was ${status}.`),
      h("p", { class: "buttons" }, ...this.#again(), this.#delete()),
    );
  }

  async #showResult() {
    const run = await get(this.url, this.closing.signal);
    const { kind } = this.operation;
    const blocks = kind === "fit" ? this.#fit(run.result)
      : kind === "nuts" ? this.#nuts(run.result)
        : comparisonBlocks(this.operation, run.result);
    this.body.replaceChildren(...blocks, h("p", { class: "buttons" }, ...this.#again(), this.#delete()));
    if (kind === "comparison") return;
    await this.table.choose(run.result.scalars[0]?.name);
    if (kind === "fit") await Promise.all([this.#trace(run.result), this.reference.open()]);
  }

  #fit(result) {
    const constants = result.normalized ? null : "without Stan's dropped constants";
    this.elbo = new ElboChart();
    this.reference = new Reference(this.operation, {
      found: (run) => this.#overlay(run), changed: this.changed, signal: this.closing.signal,
    });
    return [
      verdictBlock(result.verdict, result),
      figures([
        ["log evidence", fixed(result.log_evidence, 3),
          [`se ${fixed(result.log_evidence_se, 3)}`, estimatorOf(result), constants].filter(Boolean).join(", ")],
        ["ELBO", fixed(result.elbo, 3), `se ${fixed(result.elbo_se, 3)}`],
        ...(result.refined ? figuresOfRefined(result) : [
          ["Pareto k-hat", fixed(result.pareto_k, 2)],
          ["effective draws", count(result.importance_ess), `of ${count(result.evidence_draws)} weighted`],
        ]),
        ["time", duration(result.seconds), `${count(result.steps)} steps of training`],
        ["rejected draws", count(result.rejected_draws)],
        ["unconstrained parameters", count(result.dim)],
      ]),
      this.reference.element,
      ...this.#scalars(result, [
        ...(result.refined ? [["fit", "refined draws"]] : [["fit", "flow, importance-weighted"], ["drawn", "flow"]]),
        ["reference", "NUTS"]]),
      h("section", { "aria-labelledby": "training-title" },
        h("h2", { id: "training-title" }, "Training"), this.elbo.element,
        result.refined ? h("p", {}, movesOf(result)) : null),
      this.#downloads([["Report", "report", "html"], ["Draws (NetCDF)", "draws?format=netcdf", "nc"],
        ["Trace (CSV)", "trace", "csv"]]),
    ];
  }

  #nuts(result) {
    return [
      figures([
        ["draws", count(result.chains * result.draws), `${result.chains} chains`],
        ["divergent transitions", count(result.divergences)],
        ["largest R-hat", fixed(result.max_rhat, 3)],
        ["least effective draws", count(result.min_ess_bulk)],
        ["time", duration(result.seconds)],
        ["engine", result.engine],
      ]),
      ...this.#scalars(result, [["reference", "NUTS"]]),
      this.#downloads([["Draws (NetCDF)", "draws?format=netcdf", "nc"]]),
    ];
  }

  #scalars(result, sides) {
    this.marginal = new MarginalChart();
    this.areEqual = Boolean(result.refined);
    this.table = new ScalarTable(result.scalars, {
      weighted: this.areEqual ? null : result.weighted_scalars, preferWeighted: result.verdict === "usable",
      choose: (name) => this.#look(name),
    });
    this.legend = h("ul", { class: "legend" }, sides.map(([kind, name]) =>
      h("li", { class: kind, hidden: kind === "reference" && this.operation.kind === "fit" }, name)));
    return [h("section", { "aria-labelledby": "marginals-title" },
      h("h2", { id: "marginals-title" }, "Marginals"),
      h("div", { class: "marginals" },
        h("div", {}, this.marginal.element, this.legend), this.table.element))];
  }

  /** Look at a scalar's marginal. */
  async #look(name) {
    if (name === undefined) return;
    this.table.mark(name);
    this.looking = name;
    const sides = await this.#try(() => this.#sides(name));
    if (sides && this.looking === name) this.marginal.show(name, sides);
  }

  async #sides(name) {
    const query = new URLSearchParams({ limit: DRAWS_SHOWN, columns: name });
    const ask = (url) => get(`${url}/draws?${query}`, this.closing.signal);
    const reference = this.beside ? ask(`nuts/${this.beside}`) : null;
    if (this.operation.kind === "nuts") return { reference: plain(await ask(this.url)) };
    query.append("columns", "log_weight");
    const own = await ask(this.url);
    return {
      ...(this.areEqual ? { fit: plain(own) } : { fit: weighted(own), drawn: plain(own) }),
      reference: reference && plain(await reference),
    };
  }

  async #overlay(run) {
    this.beside = run.id;
    this.legend.querySelector(".reference").hidden = false;
    this.table.compareWith(run.result.scalars);
    await this.#look(this.looking);
  }

  /** Draw the whole training: what was told while it ran is a part. */
  async #trace(result) {
    const lines = (await text(`fits/${this.id}/trace`, this.closing.signal)).trim().split("\n");
    const names = lines[0].split(",");
    const [seconds, elbo] = ["seconds", "elbo"].map((name) => names.indexOf(name));
    const constant = result.normalizing_constant.value;
    const every = Math.max(1, Math.floor((lines.length - 1) / POINTS_SHOWN));
    this.elbo.clear();
    for (let k = 1; k < lines.length; k += every) {
      const cells = lines[k].split(",");
      if (cells[elbo] !== "") this.elbo.add(Number(cells[seconds]), Number(cells[elbo]) + constant);
    }
  }

  // ---- What can be done with it ---------------------------------------------------------------

  #downloads(things) {
    const { name } = this.operation;
    const buttons = things.map(([label, what, ending]) => h("button", {
      type: "button", onclick: () => this.#try(() => download(`${this.url}/${what}`, `${name}.${ending}`)),
    }, label));
    const program = h("button", {
      type: "button",
      onclick: () => this.#try(async () => {
        const task = await get(`operations/${this.id}/task`);
        save(new Blob([task.program_code]), `${name}.stan`);
        save(new Blob([JSON.stringify(task.data)]), `${name}.json`);
      }),
    }, "Program and data");
    return h("section", { "aria-labelledby": "downloads-title" },
      h("h2", { id: "downloads-title" }, "Download"), h("p", { class: "buttons" }, buttons, program));
  }

  #again() {
    if (this.operation.kind === "comparison") return [];
    return [h("button", {
      type: "button",
      onclick: () => this.#try(async () => {
        const task = await get(`operations/${this.id}/task`);
        takeUp(this.operation.kind === "fit" ? task : { ...task, options: {} });
        location.hash = "#/new";
      }),
    }, "Edit and fit")];
  }

  #delete() {
    const { name, kind } = this.operation;
    return h("button", {
      type: "button", class: "danger",
      onclick: async () => {
        if (!(await confirmed(`Delete this ${KINDS[kind]} of ${name}, with its draws?`, "Delete"))) return;
        await this.#try(async () => {
          await remove(this.url);
          this.left();
        });
      },
    }, "Delete");
  }

  async #try(what) {
    try {
      return await what();
    } catch (error) {
      if (error.name !== "AbortError") {
        this.body.querySelector(":scope > .problem.passing")?.remove();
        this.body.prepend(h("p", { class: "problem passing", role: "alert" }, error.message));
      }
      return undefined;
    }
  }
}

function plain({ rows }) {
  return { values: rows.map((row) => row[0]).filter((value) => value !== null) };
}

function weighted({ rows }) {
  const there = rows.filter((row) => row[0] !== null && row[1] !== null);
  const highest = there.reduce((most, row) => Math.max(most, row[1]), -Infinity);
  return {
    values: there.map((row) => row[0]), weights: there.map((row) => Math.exp(row[1] - highest)),
  };
}
