// Short messages at the edge of the page. Good news goes away by itself, an error stays until it is closed.

import { html, useEffect, useState } from "../html.js";
import { Icon } from "./parts.js";

const shown = { list: [], next: 1, changed: () => {} };

function set(list) {
  shown.list = list;
  shown.changed(list);
}

const drop = (id) => set(shown.list.filter((toast) => toast.id !== id));

export function tell(text, kind = "good") {
  const id = shown.next++;
  set([...shown.list.slice(-3), { id, text, kind }]);
  if (kind === "good") setTimeout(() => drop(id), 6000);
}

// Runs something that a button asks for, and tells what it throws.
export async function attempt(run) {
  try {
    return await run();
  } catch (error) {
    tell(error.message, "bad");
    return undefined;
  }
}

export function Toasts() {
  const [list, setList] = useState(shown.list);
  useEffect(() => {
    shown.changed = setList;
  }, []);
  return html`<div class="toasts" role="region" aria-label="Messages" aria-live="polite">
    ${list.map(({ id, text, kind }) => html`<div class="toast ${kind === "bad" ? "failed" : ""}" key=${id}>
      <p>${text}</p><button class="plain icon" aria-label="Close message" onClick=${() => drop(id)}><${Icon} name="close" /></button>
    </div>`)}
  </div>`;
}
