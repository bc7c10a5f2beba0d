// The server's HTTP interface.

const TOKEN = "stanflow-token";
const SECONDS_TO_RECONNECT = 1;

/** What the server refused, as RFC 9457 has it. */
export class Problem extends Error {
  constructor(problem) {
    super(problem.detail);
    Object.assign(this, problem);
  }
}

async function refused(response) {
  let said = null;
  try {
    said = await response.json();
  } catch {
    // A proxy's page, say.
  }
  const detail = said?.detail ?? `the server answered ${response.status} ${response.statusText}`;
  return new Problem({ ...said, detail, status: response.status });
}

async function askForToken() {
  const dialog = document.getElementById("token");
  if (!dialog.open) dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  sessionStorage.setItem(TOKEN, dialog.querySelector("input").value.trim());
}

async function send(method, path, body, signal) {
  for (;;) {
    const token = sessionStorage.getItem(TOKEN);
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    if (body !== undefined) headers["Content-Type"] = "application/json";
    let response;
    try {
      response = await fetch(`v1/${path}`, {
        method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body),
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Problem({ detail: "the server cannot be reached; is it running?", status: 0 });
    }
    if (response.status !== 401) {
      if (!response.ok) throw await refused(response);
      return response;
    }
    await askForToken();
  }
}

/** GET a resource as JSON. */
export async function get(path, signal) {
  return (await send("GET", path, undefined, signal)).json();
}

/** GET a resource as text. */
export async function text(path, signal) {
  return (await send("GET", path, undefined, signal)).text();
}

/** POST a JSON body. */
export async function post(path, body) {
  return (await send("POST", path, body)).json();
}

/** DELETE a resource. */
export async function remove(path) {
  await send("DELETE", path);
}

/** Save a resource as a file. */
export async function download(path, name) {
  save(await (await send("GET", path)).blob(), name);
}

/** Save a blob as a file. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/**
 * Follow a job until it is done. `onstart` is called at every connection: events begin anew.
 * EventSource would do, were it able to bring a token.
 */
export async function follow(job, { onstart, onstep, onoperation }, signal) {
  for (;;) {
    const response = await patiently(() => send("GET", `operations/${job}/events`, undefined, signal));
    if (response) {
      onstart();
      for await (const [name, data] of serverSentEvents(response.body)) {
        if (name === "step") onstep(data);
        else if (name === "operation") {
          await onoperation(data);
          if (data.done) return;
        }
      }
    }
    if (signal.aborted) return;
    await new Promise((resolve) => setTimeout(resolve, 1000 * SECONDS_TO_RECONNECT));
  }
}

/** Return null where trying again may help: the server is gone, restarts, or is busy. */
async function patiently(ask) {
  try {
    return await ask();
  } catch (error) {
    if (error.name === "AbortError" || error.status === 0 || error.status >= 500) return null;
    throw error;
  }
}

/** Yield events until the stream ends, however it ends. */
async function* serverSentEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch(() => ({ done: true }));
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const found = /^event: (.*)\ndata: (.*)$/.exec(event);
      if (found) yield [found[1], JSON.parse(found[2])];
    }
  }
}
