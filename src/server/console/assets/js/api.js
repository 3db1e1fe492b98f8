// The REST API. The key, if the service wants one, is kept for this tab only and sent as a header: there is no cookie, so no request of
// another site's page can bear it.

const KEY = "backstay-key";
const listeners = new Set();

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget() {
    sessionStorage.removeItem(KEY);
    listeners.forEach((listener) => listener());
  },
  // Calls back when a request was refused for want of the key.
  onRefused(listener) {
    listeners.add(listener);
    return () => listeners.delete(listener);
  },
};

// What the service refused or failed at.
class ApiError extends Error {
  constructor(status, { message } = {}) {
    super(message ?? `the service answered with status ${status}`);
    this.status = status;
  }
}

async function ask(path, { method = "GET", body, signal, headers = {} } = {}) {
  const sent = { ...headers };
  if (key.get()) sent.authorization = `Bearer ${key.get()}`;
  if (body !== undefined) sent["content-type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, signal, headers: sent, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, { message: "the service cannot be reached" });
  }
  if (answer.ok) return answer;
  const error = new ApiError(answer.status, await answer.json().catch(() => undefined));
  if (error.status === 401) listeners.forEach((listener) => listener());
  throw error;
}

// The path of a pipeline, and what is below it.
export const of = (name, rest = "") => `/v0/pipelines/${encodeURIComponent(name)}${rest}`;

export const get = async (path, signal) => (await ask(path, { signal })).json();
export const post = (path, body) => ask(path, { method: "POST", body });
export const patch = async (path, body) => (await ask(path, { method: "PATCH", body })).json();
export const remove = (path) => ask(path, { method: "DELETE" });

// An answer's text, piece by piece as it comes.
export async function* pieces(path, signal) {
  const answer = await ask(path, { signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (let piece = await reader.read(); !piece.done; piece = await reader.read()) yield piece.value;
  } finally {
    reader.cancel().catch(() => {});
  }
}

// Its lines, the last one too if no line end follows it.
export async function* lines(path, signal) {
  let rest = "";
  for await (const piece of pieces(path, signal)) {
    const parts = (rest + piece).split("\n");
    rest = parts.pop();
    yield* parts;
  }
  if (rest) yield rest;
}

// Asks again until `isSo` holds of the pipeline.
export async function until(name, isSo, seconds = 60) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const pipeline = await get(of(name, "?selector=status"));
    if (isSo(pipeline)) return pipeline;
    if (pipeline.deployment_error) throw new ApiError(0, pipeline.deployment_error);
    if (Date.now() > end) throw new ApiError(0, { message: `"${name}" is still ${pipeline.deployment_status} after ${seconds} s` });
    await new Promise((done) => setTimeout(done, 200));
  }
}
