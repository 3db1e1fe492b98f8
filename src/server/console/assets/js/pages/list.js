// All pipelines: what each does, how fast, and how far it is behind.

import { html, useState } from "../html.js";
import { get } from "../api.js";
import { brief, count, dash, plural } from "../format.js";
import { linkTo, usePoll, useTitle } from "../hooks.js";
import { Banner, Icon, Stale, State, Waiting } from "../ui/parts.js";
import { CreateDialog } from "./create.js";

// A filter is of use from here on.
const MANY = 8;

function Lag({ now }) {
  if (!now) return dash;
  const steps = now.undelivered_steps ? html` <span class="muted small">${plural(now.undelivered_steps, "step")} undelivered</span>` : "";
  return html`<span>${brief(now.buffered_records)}${steps}</span>`;
}

function Row({ pipeline }) {
  const { name, description, backstay: now, program_status, storage_status } = pipeline;
  // On a phone what a stopped pipeline does not have is left out.
  const figure = (label, value) => html`<td class="number ${now ? "" : "none"}" data-label=${label}>${value}</td>`;
  return html`<tr>
    <td><div><a href=${linkTo(name)}>${name}</a>${description && html`<div class="muted small break">${description}</div>`}</div></td>
    <td data-label="State"><span class="row"><${State} pipeline=${pipeline} />${program_status === "CompilingSql" ? html`<span class="muted small">compiling …</span>` : program_status !== "Success" && html`<span class="bad small">does not compile</span>`}</span></td>
    ${figure("Rows a second", now ? brief(now.records_per_second) : dash)}
    ${figure("Rows waiting", html`<${Lag} now=${now} />`)}
    ${figure("Rows in all", now ? brief(now.records) : dash)}
    ${figure("Step", now ? count(now.step) : dash)}
    <td data-label="Storage">${{ InUse: "kept", Cleared: "empty", Clearing: "being cleared" }[storage_status] ?? storage_status}</td>
  </tr>`;
}

const Nothing = ({ onNew }) => html`<div class="card empty">
  <img src="/console/icon.svg" alt="" width="44" height="44" />
  <h2>No pipelines yet</h2>
  <p>A pipeline is a SQL program: tables that are filled from files, Kafka, stores or pushes, and views over them that are kept up to date row by row, exactly once across crashes.</p>
  <button class="primary" onClick=${onNew}><${Icon} name="plus" />New pipeline</button>
</div>`;

export function ListPage() {
  useTitle("Pipelines");
  const poll = usePoll((signal) => get("/v0/pipelines?selector=status", signal), 1500, []);
  const [filter, setFilter] = useState("");
  const [creating, setCreating] = useState(false);
  const all = poll.data;
  const shown = all?.filter(({ name }) => name.toLowerCase().includes(filter.toLowerCase()));
  const open = () => setCreating(true);
  return html`<div class="stack">
    <div class="head">
      <div class="title"><h1>Pipelines</h1>${all && html`<span class="muted">${count(all.length)}</span>`}</div>
      ${all?.length > MANY && html`<div><input type="search" aria-label="Filter by name" placeholder="Filter by name" value=${filter} onInput=${(e) => setFilter(e.target.value)} /></div>`}
      ${all?.length > 0 && html`<button class="primary" onClick=${open}><${Icon} name="plus" />New pipeline</button>`}
    </div>
    ${all && html`<${Stale} error=${poll.error} />`}
    ${!all ? html`<${Waiting} poll=${poll} what="pipelines" />`
      : all.length === 0 ? html`<${Nothing} onNew=${open} />`
      : shown.length === 0 ? html`<${Banner} kind="info">No pipeline's name has “${filter}” in it.<//>`
      : html`<div class="card scroll"><table class="cards list">
          <thead><tr><th>Name</th><th>State</th><th class="number">Rows/s</th><th class="number">Rows waiting</th><th class="number">Rows in all</th><th class="number">Step</th><th>Storage</th></tr></thead>
          <tbody>${shown.map((pipeline) => html`<${Row} key=${pipeline.id} pipeline=${pipeline} />`)}</tbody>
        </table></div>`}
    ${creating && html`<${CreateDialog} onClose=${() => setCreating(false)} />`}
  </div>`;
}
