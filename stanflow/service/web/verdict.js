// What a run says of itself, loudly.

import { h } from "./dom.js";

const WORDS = {
  good: "Good", usable: "Usable", unreliable: "Unreliable",
  agree: "Agree", close: "Close", undecided: "Undecided", differ: "Differ",
};
const MEANINGS = {
  good: "The flow matches the posterior as far as can be told.",
  usable: "Use the importance-weighted draws and their summaries, not the plain ones.",
  unreliable: "Do not rely on these draws or this evidence.",
};
const MEANINGS_OF_REFINED = {
  ...MEANINGS,
  good: "The draws can be used as they are.",
  usable: "The draws can be used with the caution that the reasons name.",
};

/** A verdict's block. */
export function verdictBlock(verdict, { refined = false, headline, reasons = [], advice = [] }) {
  headline ??= (refined ? MEANINGS_OF_REFINED : MEANINGS)[verdict];
  return h("section", { class: `verdict ${verdict}`, "aria-label": "Verdict" },
    h("strong", {}, WORDS[verdict] ?? verdict),
    headline ? h("p", {}, headline) : null,
    reasons.length ? list(reasons) : null,
    advice.length ? [h("p", {}, h("b", {}, "What to do:")), list(advice)] : null,
  );
}

function list(clauses) {
  return h("ul", {}, clauses.map((clause) => h("li", {}, clause)));
}

/** A job's state in a word: the verdict where there is one. */
export function badge(operation) {
  const word = operation.status === "succeeded" ? operation.verdict ?? "done" : operation.status;
  return h("span", { class: `badge ${word}` }, word);
}

/** Numbers with their names. */
export function figures(pairs) {
  return h("dl", { class: "figures" }, pairs.map(([name, value, note]) =>
    h("div", {}, h("dt", {}, name), h("dd", {}, value), note ? h("dd", { class: "soft" }, note) : null)));
}
