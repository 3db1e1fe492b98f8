// What a pipeline reads and writes: position, lag and errors of each connector.

import { html } from "../html.js";
import { get, of } from "../api.js";
import { brief, bytes, count, dash } from "../format.js";
import { usePoll } from "../hooks.js";
import { Banner, Waiting, hasFigures } from "../ui/parts.js";

const FIRST = 3;

function Health({ health, ended }) {
  if (!health) return html`<span class="badge">not running</span>`;
  if (health.status !== "Healthy") return html`<span class="badge bad">hindered</span>`;
  return ended ? html`<span class="badge">at its end</span>` : html`<span class="badge good">healthy</span>`;
}

function Position({ position }) {
  if (!position?.last.length) return dash;
  const line = ({ partition, offset }) => html`<div class="mono break">${partition} <span class="muted">at</span> ${count(offset)}</div>`;
  const rest = position.partitions - FIRST;
  const last = [...position.last].reverse();
  return html`<div>${last.slice(0, FIRST).map(line)}${rest > 0 && html`<details><summary class="muted small">${count(rest)} more</summary>${last.slice(FIRST).map(line)}</details>`}</div>`;
}

const Name = ({ name, config, health }) => html`<div class="break"><b>${name}</b>
  <div class="muted small">${[config?.transport?.name, config?.format?.name].filter(Boolean).join(", ") || (config ? "" : "rows pushed over HTTP")}</div>
  ${health?.description && html`<div class="bad small" role="alert">${health.description}</div>`}</div>`;

function Inputs({ list }) {
  return html`<table class="cards"><thead><tr><th>Input</th><th>State</th><th class="number">Rows</th><th class="number">Waiting</th><th class="number">Not parsed</th><th>Position (next to read)</th></tr></thead>
    <tbody>${list.map(({ name, config, now }) => html`<tr key=${name}>
      <td><${Name} name=${name} config=${config} health=${now?.health} /></td>
      <td data-label="State"><${Health} health=${now?.health} ended=${now?.metrics.end_of_input} /></td>
      <td class="number" data-label="Rows">${now ? brief(now.metrics.total_records - now.metrics.buffered_records) : dash}</td>
      <td class="number" data-label="Waiting">${now ? brief(now.metrics.buffered_records) : dash}</td>
      <td class="number ${now?.metrics.num_parse_errors ? "bad" : ""}" data-label="Not parsed">${now ? count(now.metrics.num_parse_errors) : dash}</td>
      <td data-label="Position"><${Position} position=${now?.backstay?.position} /></td>
    </tr>`)}</tbody></table>`;
}

function Outputs({ list, step }) {
  return html`<table class="cards"><thead><tr><th>Output</th><th>State</th><th class="number">Rows written</th><th class="number">Delivered step</th><th class="number">Steps behind</th><th class="number">Not durable there yet</th></tr></thead>
    <tbody>${list.map(({ name, config, now }) => {
      const m = now?.metrics;
      return html`<tr key=${name}>
        <td><${Name} name=${name} config=${config} health=${now?.health} /></td>
        <td data-label="State"><${Health} health=${now?.health} /></td>
        <td class="number" data-label="Rows written">${m ? brief(m.transmitted_records) : dash}</td>
        <td class="number" data-label="Delivered step">${m ? count(m.total_processed_steps) : dash}</td>
        <td class="number" data-label="Steps behind">${m ? count(Math.max(0, step - m.total_processed_steps)) : dash}</td>
        <td class="number" data-label="Not durable there yet">${m ? `${brief(m.queued_records)} rows, ${bytes(m.memory)}` : dash}</td>
      </tr>`;
    })}</tbody></table>`;
}

// Those of the program, with their figures if there are any; and those that only have figures (rows that were pushed).
function joined(configs = {}, figures = []) {
  const names = new Set([...Object.keys(configs), ...figures.map((f) => f.endpoint_name)]);
  return [...names].map((name) => ({ name, config: configs[name], now: figures.find((f) => f.endpoint_name === name) }));
}

export function ConnectorsTab({ pipeline }) {
  const { name, program_info: info } = pipeline;
  const up = hasFigures(pipeline);
  const poll = usePoll((signal) => (up ? get(of(name, "/stats"), signal) : undefined), 1000, [name, up]);
  if (!info) return html`<${Banner} kind="info">Connectors are shown here once the program compiles.<//>`;
  if (up && !poll.data && !poll.error) return html`<${Waiting} poll=${poll} what="figures" />`;
  const inputs = joined(info.input_connectors, poll.data?.inputs);
  const outputs = joined(info.output_connectors, poll.data?.outputs);
  const part = (title, list, Table, none) => html`<section class="card scroll" aria-label=${title}>
    <div class="card-head"><h2>${title}</h2><span class="muted small">${list.length}</span></div>
    ${list.length ? html`<${Table} list=${list} step=${poll.data?.backstay.step} />` : html`<p class="muted card-foot">${none}</p>`}
  </section>`;
  return html`<div class="stack">
    ${up ? poll.error && html`<${Banner} kind="warn">${poll.error.message}<//>` : html`<${Banner} kind="info">The pipeline is not running: figures are shown while it is.<//>`}
    ${part("Inputs", inputs, Inputs, "The program's tables have no connectors. Rows can be pushed to them over HTTP (POST …/ingress/TABLE).")}
    ${part("Outputs", outputs, Outputs, "The program's views have no connectors. They can be listened to over HTTP (…/egress/VIEW), and asked.")}
  </div>`;
}
