// Small parts that every page uses.

import { html, useEffect, useRef } from "../html.js";

const PATHS = {
  play: "M4 2.5v11l9-5.5z",
  pause: "M4 3h3v10H4zM9 3h3v10H9z",
  stop: "M3.5 3.5h9v9h-9z",
  plus: "M7 2h2v5h5v2H9v5H7V9H2V7h5z",
  close: "M4.2 3 8 6.8 11.8 3 13 4.2 9.2 8l3.8 3.8-1.2 1.2L8 9.2 4.2 13 3 11.8 6.8 8 3 4.2z",
  more: "M3 6.5a1.5 1.5 0 1 1 0 3 1.5 1.5 0 0 1 0-3m5 0a1.5 1.5 0 1 1 0 3 1.5 1.5 0 0 1 0-3m5 0a1.5 1.5 0 1 1 0 3 1.5 1.5 0 0 1 0-3",
  gear: "M6.8 1h2.4l.4 1.9 1 .5 1.8-.7 1.3 2-1.3 1.4.1 1.9 1.3 1.3-1.3 2.1-1.9-.6-1 .6L9.2 13H6.8l-.4-1.6-1-.6-1.9.6-1.3-2.1L3.5 8l.1-1.9L2.3 4.7l1.3-2 1.8.7 1-.5zM8 4.9a2.1 2.1 0 1 0 0 4.2 2.1 2.1 0 0 0 0-4.2",
};

export const Icon = ({ name }) => html`<svg viewBox="0 0 16 16" aria-hidden="true"><path fill="currentColor" fill-rule="evenodd" d=${PATHS[name]} /></svg>`;

const LOOKS = {
  Running: "good",
  Paused: "",
  Stopped: "",
  Unavailable: "bad",
  Failed: "bad",
  Provisioning: "warn busy",
  Initializing: "warn busy",
  Replaying: "warn busy",
  Stopping: "warn busy",
  Clearing: "warn busy",
};
const WORDS = { Unavailable: "Restarting", Provisioning: "Starting", Initializing: "Starting" };

// What a pipeline does, in one word.
const stateOf = (pipeline) =>
  pipeline.storage_status === "Clearing" ? "Clearing"
  : pipeline.deployment_error && pipeline.deployment_status === "Stopped" ? "Failed"
  : pipeline.deployment_status;

export const State = ({ pipeline }) => {
  const state = stateOf(pipeline);
  return html`<span class="badge ${LOOKS[state] ?? ""}" data-state=${state}>${WORDS[state] ?? state}</span>`;
};

// Whether it takes rows and can be asked; and whether its process has figures to show.
export const isUp = ({ deployment_status: status }) => status === "Running" || status === "Paused";
export const hasFigures = ({ deployment_status: status }) => ["Running", "Paused", "Replaying", "Stopping"].includes(status);

// Something that went wrong, with what can be done about it.
export const Banner = ({ kind = "bad", children, actions }) => html`
  <div class="banner ${kind}" role=${kind === "bad" ? "alert" : "status"}><div class="says">${children}</div>${actions}</div>`;

// What a page shows until it has data, and when it cannot get them.
export const Waiting = ({ poll, what }) =>
  poll.error ? html`<${Banner}>${poll.error.message}<//>` : html`<p class="muted" role="status">Loading ${what} …</p>`;

// A line above data that may be old because the service does not answer.
export const Stale = ({ error }) =>
  error && html`<${Banner} kind="warn">What is shown may be old: ${error.message}. Trying again.<//>`;

// A menu behind a button; closed by Escape, a press elsewhere, or a choice.
export function Menu({ label, children }) {
  const menu = useRef();
  useEffect(() => {
    const away = (event) => {
      if (event.type === "keydown" ? event.key === "Escape" : !menu.current?.contains(event.target)) close(event.type === "keydown");
    };
    const close = (refocus) => {
      if (!menu.current?.open) return;
      menu.current.open = false;
      if (refocus) menu.current.querySelector("summary").focus();
    };
    document.addEventListener("pointerdown", away);
    document.addEventListener("keydown", away);
    return () => {
      document.removeEventListener("pointerdown", away);
      document.removeEventListener("keydown", away);
    };
  }, []);
  const chosen = (event) => {
    if (event.target.closest("button")) menu.current.open = false;
  };
  return html`<details class="menu" ref=${menu}>
    <summary aria-label=${label} title=${label}><${Icon} name="more" /></summary>
    <div onClick=${chosen}>${children}</div>
  </details>`;
}
