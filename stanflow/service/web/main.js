// The page: what is shown follows the address behind the #.

import { get } from "./api.js";
import { ComposeView } from "./compose.js";
import { h } from "./dom.js";
import { RunView } from "./run.js";
import { RunsList } from "./runs.js";

const main = document.getElementById("main");
const NEW = "#/new";
let view = null;

const runs = new RunsList(document.getElementById("runs"), {
  deleted: (id) => location.hash === `#/runs/${id}` && goTo(NEW),
});

function goTo(hash) {
  if (location.hash === hash) show();
  else location.hash = hash;
}

async function show() {
  view?.close();
  const [, run] = /^#\/runs\/([0-9a-f]+)$/.exec(location.hash) ?? [];
  runs.mark(run ?? null);
  view = run
    ? new RunView(run, { changed: () => runs.refresh(), left: () => goTo(NEW) })
    : new ComposeView({ begun: (operation) => goTo(`#/runs/${operation.id}`) });
  const shown = view;
  main.replaceChildren(view.element);
  document.title = `${view.title} · StanFlow`;
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
  try {
    await view.open?.();
  } catch (error) {
    if (shown !== view || error.name === "AbortError") return;
    shown.element.append(h("p", { class: "problem", role: "alert" }, error.message));
  }
}

async function greet() {
  const place = document.getElementById("server");
  try {
    const { version } = await get("health");
    place.textContent = `version ${version}`;
  } catch (error) {
    place.textContent = error.message;
  }
}

addEventListener("hashchange", show);
await greet();
await runs.refresh();
await show();
