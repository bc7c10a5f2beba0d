// A text area with line numbers, at one of which something may be wrong.

import { h } from "./dom.js";

/** What a compiler or engine said, in full, for who wants to see it. */
export function compilerOutput(output) {
  return h("details", {}, h("summary", {}, "What the compiler said"), h("pre", { tabindex: "0" }, output));
}

export class Editor {
  constructor({ id, label, hint, rows, onchange = () => {} }) {
    this.gutter = h("div", { class: "gutter", "aria-hidden": "true" });
    this.area = h("textarea", {
      id, rows, spellcheck: "false", autocapitalize: "off", autocomplete: "off", wrap: "off",
      placeholder: hint, "aria-describedby": `${id}-problem`,
      oninput: () => {
        this.refuse(null);
        onchange();
      },
      onscroll: () => this.#align(),
      onkeydown: (event) => this.#indent(event),
    });
    this.message = h("div", { class: "problem", id: `${id}-problem`, role: "alert", hidden: true });
    this.element = h("div", { class: "editor-block" },
      h("label", { for: id }, label),
      h("div", { class: "editor" }, this.gutter, this.area),
      this.message,
    );
    this.wrong = null;
    this.#number();
  }

  get value() {
    return this.area.value;
  }

  set value(text) {
    this.area.value = text;
    this.refuse(null);
  }

  /** Say what is wrong, at a line (from 1) where that is known; null takes it back. */
  refuse(message, line = null, column = null, output = null) {
    this.wrong = line;
    this.message.hidden = message === null;
    this.message.replaceChildren(message ?? "");
    if (output) this.message.append(compilerOutput(output));
    this.area.setAttribute("aria-invalid", message !== null);
    this.#number();
    if (message === null) return;
    if (line !== null) this.#goTo(line, column ?? 0);
    this.area.focus();
  }

  #number() {
    const lines = this.area.value.split("\n").length;
    const numbers = Array.from({ length: lines }, (_, k) =>
      h("div", k + 1 === this.wrong ? { class: "wrong" } : {}, String(k + 1)));
    this.gutter.replaceChildren(...numbers);
    this.#align();
  }

  #goTo(line, column) {
    const start = this.area.value.split("\n").slice(0, line - 1).reduce((n, text) => n + text.length + 1, 0);
    const end = this.area.value.indexOf("\n", start);
    const at = Math.min(start + column, end < 0 ? this.area.value.length : end);
    this.area.setSelectionRange(at, at);
    const height = this.area.scrollHeight / this.area.value.split("\n").length;
    this.area.scrollTop = Math.max(0, (line - 3) * height);
    this.#align();
  }

  #align() {
    this.gutter.scrollTop = this.area.scrollTop;
  }

  /** Tab leaves the field, as everywhere; Enter keeps the indentation. */
  #indent(event) {
    if (event.key !== "Enter" || event.ctrlKey || event.metaKey || event.isComposing) return;
    const before = this.area.value.slice(0, this.area.selectionStart);
    const spaces = /^[ \t]*/.exec(before.slice(before.lastIndexOf("\n") + 1))[0];
    if (!spaces) return;
    event.preventDefault();
    this.area.setRangeText(`\n${spaces}`, this.area.selectionStart, this.area.selectionEnd, "end");
    this.area.dispatchEvent(new Event("input"));
  }
}
