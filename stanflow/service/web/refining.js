// Draws on their way from the flow to the posterior, and what came of it.

import { h } from "./dom.js";
import { count, duration, fixed } from "./numbers.js";

const ENDINGS = {
  settled: "until they had settled",
  evaluations: "to the limit of gradients",
  "cut short": "cut short by the limit of time",
  far: "cut short by the limit of time",
};

/** How far refining is; hidden while there is no round to show. */
export class Refining {
  constructor() {
    this.label = h("label", { for: "refining" });
    this.bar = h("progress", { id: "refining", max: 1 });
    this.note = h("p", { class: "soft" });
    this.element = h("div", { class: "refining", hidden: true }, this.label, this.bar, this.note);
  }

  show(round) {
    this.element.hidden = !round;
    if (!round) return;
    const { inverse_temperature, acceptance, rhat, log_evidence, share, seconds, outward } = round;
    const anneals = inverse_temperature < 1;
    const ended = !anneals && share === 1;
    const there = outward ? "following the posterior outward" : "settling at the posterior";
    const said = [
      anneals ? `inverse temperature ${fixed(inverse_temperature, 2)}` : ended ? null : there,
      `acceptance ${fixed(acceptance, 2)}`,
      rhat === null ? null : `R-hat ${fixed(rhat, 3)}`,
    ];
    this.label.textContent = `${ended ? "Refined" : "Refining"}: ${said.filter(Boolean).join(", ")}`;
    this.bar.value = share;
    this.note.textContent = `${duration(seconds)}, log evidence so far ${fixed(log_evidence, 2)}; `
      + (ended ? "chains from elsewhere look for what is missing" : `${Math.round(100 * share)} % of its budget of gradients`);
  }
}

/** What vouches for refined draws, for `figures`. */
export function figuresOfRefined({ refine, draws, pareto_k }) {
  return [
    ["EUBO of the flow", fixed(refine.eubo, 3), "an upper bound"],
    ["R-hat", fixed(refine.rhat, 3), `of ${count(refine.islands)} islands of particles`],
    ["effective draws", count(refine.ess), `of ${count(draws)}, all of the same weight`],
    ["Pareto k-hat of the flow", fixed(pareto_k, 2), "before its draws were moved"],
  ];
}

/** By which of the estimators a log evidence is. */
export function estimatorOf({ refined, refine, log_evidence }) {
  if (!refined) return "by importance sampling";
  return log_evidence === refine.log_evidence_bridge ? "by bridge sampling" : "by annealing";
}

/** How draws were refined, in a sentence. */
export function movesOf({ refine, stages }) {
  const temperatures = `${count(refine.temperatures)} ${refine.temperatures === 1 ? "temperature" : "temperatures"}`;
  const learnt = stages.sharpening ? " The flow learnt from them, and they began again." : "";
  const { outward } = refine;
  const farther = outward
    ? ` Moves alone did not come to ${Math.round(100 * outward.share)} % of the posterior: draws there are of particles `
      + `held at ${count(outward.values)} values of ${outward.parameter}.`
    : "";
  return `Then ${count(refine.particles)} particles were annealed from the flow to the posterior over `
    + `${temperatures} and moved ${count(refine.transitions)} times more, ${ENDINGS[refine.stopped]}, `
    + `in ${duration(stages.refine.seconds)}.${learnt}${farther}`;
}
