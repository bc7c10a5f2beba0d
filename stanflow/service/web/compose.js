// A new fit: program, data and options.

import { Problem, get, post } from "./api.js";
import { h } from "./dom.js";
import { Editor } from "./editor.js";
import { EXAMPLE } from "./example.js";

const NAME = "model";

/** What is asked for lives as long as the page, so that a look at a run loses nothing. */
let kept = { name: NAME, program_code: "", data: "", options: {} };

/** Put program, data and options of an earlier job into the fields. */
export function takeUp({ name, program_code, data, options = {} }) {
  kept = { name, program_code, data: Object.keys(data).length ? dataText(data) : "", options };
}

/** Data as text: a variable a line. */
function dataText(data) {
  const lines = Object.entries(data).map(([key, value]) => `  ${JSON.stringify(key)}: ${JSON.stringify(value)}`);
  return `{\n${lines.join(",\n")}\n}\n`;
}

export class ComposeView {
  title = "New fit";

  constructor({ begun }) {
    this.begun = begun;
    const keep = () => this.#keep();
    this.program = new Editor({
      id: "program", label: "Stan program", rows: 22, onchange: keep,
      hint: "Paste a program, or drop a .stan file anywhere on this page.",
    });
    this.data = new Editor({
      id: "data", label: "Data (JSON)", rows: 10, onchange: keep,
      hint: "Paste data, or drop a .json file. Empty if the program needs none.",
    });
    this.name = h("input", {
      id: "name", type: "text", required: true, pattern: "[A-Za-z][A-Za-z0-9_]{0,63}", oninput: keep,
      title: "a letter, then letters, digits and underscores",
    });
    this.seed = number("seed", { min: 0, max: 2 ** 32 - 1, value: 1, required: true });
    this.draws = number("draws", { min: 2, max: 1_000_000, value: 4000, required: true });
    this.seconds = number("max-seconds", { min: 1, placeholder: "no limit" });
    this.preset = h("select", { id: "preset" },
      h("option", { value: "auto" }, "chosen by the program"),
      h("option", { value: "paper" }, "the paper's"));
    this.message = h("p", { role: "status", class: "said" });
    this.submit = h("button", { class: "primary", type: "submit" }, "Fit");
    this.check = h("button", { type: "button", onclick: () => this.#do(() => this.#check()) }, "Check");
    this.form = h("form", {
      class: "compose", novalidate: true,
      onsubmit: (event) => {
        event.preventDefault();
        this.#do(() => this.#fit());
      },
      onkeydown: (event) => {
        if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.form.requestSubmit();
      },
    },
      h("h1", {}, this.title),
      h("p", { class: "soft" },
        "A program and its data are all that is needed. ",
        h("button", { type: "button", class: "link", onclick: () => this.#example() }, "Try an example"),
        " or ",
        h("label", { class: "link file" }, "open files",
          h("input", { type: "file", multiple: true, accept: ".stan,.json",
            onchange: (event) => this.#open([...event.target.files]) })),
        "."),
      this.program.element,
      this.data.element,
      h("details", {},
        h("summary", {}, "Options"),
        h("div", { class: "options" },
          field("Name", this.name), field("Seed", this.seed), field("Draws", this.draws),
          field("Longest training, seconds", this.seconds), field("Settings", this.preset))),
      h("div", { class: "buttons" }, this.submit, this.check,
        h("span", { class: "soft keys" }, "Ctrl + Enter fits")),
      this.message,
    );
    this.element = this.form;
    this.#fill();
    this.#takeDrops();
  }

  close() {
    this.stopTakingDrops();
  }

  #fill() {
    this.program.value = kept.program_code;
    this.data.value = kept.data;
    this.name.value = kept.name;
    const { seed, draws, max_seconds, preset } = kept.options;
    if (seed !== undefined) this.seed.value = seed;
    if (draws !== undefined) this.draws.value = draws;
    this.seconds.value = max_seconds ?? "";
    if (preset !== undefined) this.preset.value = preset;
  }

  #keep() {
    kept = { ...kept, name: this.name.value, program_code: this.program.value, data: this.data.value };
  }

  #example() {
    takeUp(EXAMPLE);
    this.#fill();
    this.program.area.focus();
  }

  #takeDrops() {
    const over = (event) => {
      event.preventDefault();
      document.body.classList.toggle("dropping", event.type === "dragover");
    };
    const drop = (event) => {
      over(event);
      this.#open([...event.dataTransfer.files]);
    };
    const listeners = { dragover: over, dragleave: over, drop };
    for (const [type, listener] of Object.entries(listeners)) document.addEventListener(type, listener);
    this.stopTakingDrops = () => {
      for (const [type, listener] of Object.entries(listeners)) document.removeEventListener(type, listener);
    };
  }

  async #open(files) {
    const unknown = [];
    for (const file of files) {
      if (file.name.endsWith(".stan")) {
        this.program.value = await file.text();
        const stem = file.name.slice(0, -".stan".length).replace(/[^A-Za-z0-9_]/g, "_").slice(0, 64);
        this.name.value = /^[A-Za-z]/.test(stem) ? stem : NAME;
      } else if (file.name.endsWith(".json")) this.data.value = await file.text();
      else unknown.push(file.name);
    }
    this.#keep();
    this.message.textContent = unknown.length
      ? `${unknown.join(", ")}: neither a .stan nor a .json file`
      : `Opened ${files.map((file) => file.name).join(", ")}.`;
  }

  /** Do something with the buttons off, and show what was refused where it belongs. */
  async #do(what) {
    this.program.refuse(null);
    this.data.refuse(null);
    if (!this.form.checkValidity()) {
      this.form.querySelector("details").open = true;
      this.form.reportValidity();
      return;
    }
    this.submit.disabled = this.check.disabled = true;
    this.message.textContent = "Compiling…";
    try {
      await what();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.message.textContent = "";
      this.#refuse(error);
    } finally {
      this.submit.disabled = this.check.disabled = false;
    }
  }

  #refuse(problem) {
    if (problem.kind === "data") this.data.refuse(problem.message);
    else if (["program", "engine", "limit", "crash"].includes(problem.kind)) {
      this.program.refuse(problem.message, problem.line, problem.column, problem.output);
    } else this.message.replaceChildren(h("span", { class: "problem" }, problem.message));
  }

  async #compile() {
    if (!this.program.value.trim()) throw new Problem({ kind: "program", detail: "there is no program yet" });
    return post("models", { program_code: this.program.value, name: this.name.value });
  }

  /** The data as they stand; what is not JSON is refused at its line. */
  #parsed() {
    const text = this.data.value;
    if (!text.trim()) return {};
    try {
      return JSON.parse(text);
    } catch (error) {
      const at = /line (\d+) column (\d+)/.exec(error.message);
      const position = /position (\d+)/.exec(error.message);
      const line = at ? Number(at[1])
        : position ? text.slice(0, Number(position[1])).split("\n").length : null;
      this.data.refuse(`The data are not JSON: ${error.message}`, line, at ? Number(at[2]) - 1 : 0);
      return null;
    }
  }

  async #check() {
    const model = await this.#compile();
    const data = this.#parsed();
    if (data === null) {
      this.message.textContent = "The program compiles.";
      return;
    }
    const found = await post(`models/${model.id}/params`, { data });
    const ignored = found.ignored_data.length ? ` Not in the program: ${found.ignored_data.join(", ")}.` : "";
    this.message.textContent =
      `The program compiles and takes the data: ${found.dim} unconstrained parameters, ` +
      `${found.columns.length} scalars.${ignored}`;
  }

  async #fit() {
    const data = this.#parsed();
    if (data === null) {
      this.message.textContent = "";
      return;
    }
    const model = await this.#compile();
    await post(`models/${model.id}/params`, { data });
    const options = {
      seed: Number(this.seed.value), draws: Number(this.draws.value), preset: this.preset.value,
    };
    if (this.seconds.value) options.max_seconds = Number(this.seconds.value);
    kept.options = options;
    this.begun(await post(`models/${model.id}/fits`, { data, options }));
  }
}

/** Return the id of a program, compiled again if the server no longer has it. */
export async function modelOf({ model, program_code, name }) {
  try {
    return (await get(`models/${model}`)).id;
  } catch (error) {
    if (error.status !== 404) throw error;
    return (await post("models", { program_code, name })).id;
  }
}

function number(id, properties) {
  return h("input", { id, type: "number", step: "1", inputmode: "numeric", ...properties });
}

function field(label, input) {
  return h("div", {}, h("label", { for: input.id }, label), input);
}
