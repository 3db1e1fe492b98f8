// The operators that a program was compiled to: what flows between them, what each keeps, and where the time goes.

import { html, useLayoutEffect, useMemo, useRef, useState } from "../html.js";
import { get, of } from "../api.js";
import { brief, bytes, count, dash, micros, plural } from "../format.js";
import { usePoll } from "../hooks.js";
import { layers } from "../ui/layers.js";
import { Banner, Waiting, isUp } from "../ui/parts.js";

const SIZES = { width: 196, gap: 26, height: 74, drop: 40, lane: 12 };
const MARGIN = 16;
const ENDS = ["table", "view", "source", "sink"];
const ZOOMS = [0.5, 0.7, 0.85, 1, 1.25, 1.5];

const keeps = ({ state_rows, state_bytes }) => state_rows > 0 || state_bytes > 0;
const state = (operator) => (keeps(operator) ? `${brief(operator.state_rows)} rows, ${bytes(operator.state_bytes)}` : "keeps nothing");
const clipped = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

function Edge({ path, rows }) {
  const points = path.map(({ x, y }, i) => ({ x, top: i === 0 ? y + SIZES.height : y, bottom: i === path.length - 1 ? y : y + SIZES.height }));
  const d = points.slice(1).reduce((d, { x, top, bottom }, i) => {
    const from = points[i];
    const middle = (from.bottom + top) / 2;
    return `${d} C${from.x},${middle} ${x},${middle} ${x},${top}${bottom > top ? ` L${x},${bottom}` : ""}`;
  }, `M${points[0].x},${points[0].top}`);
  return html`<path class="edge" d=${d} marker-end="url(#arrow)"><title>${count(rows)} rows</title></path>`;
}

function Node({ node: { x, y }, id, operator, share }) {
  const { kind, label, rows_in, rows_out } = operator;
  return html`<g class="node ${ENDS.includes(kind) ? "ends" : ""}" transform="translate(${x - SIZES.width / 2},${y})">
    <title>${`${id} ${kind}: ${label}\n${count(rows_in)} rows in, ${count(rows_out)} out\n${state(operator)}\n${micros(operator.busy_us)} of time, ${Math.round(share * 100)} %`}</title>
    <rect class="box" width=${SIZES.width} height=${SIZES.height} rx="7" />
    <rect class="heat" x="1" y=${SIZES.height - 4} width=${(SIZES.width - 2) * share} height="3" rx="1.5" />
    <text class="kind" x="10" y="18">${clipped(kind, 26)}</text>
    <text x="10" y="33">${clipped(label, 31)}</text>
    <text x="10" y="48">${brief(rows_in)} rows in, ${brief(rows_out)} out</text>
    <text x="10" y="62">${state(operator)}</text>
  </g>`;
}

function Graph({ operators, busy, zoom, onZoom }) {
  const shape = JSON.stringify(operators.map((operator) => operator.inputs ?? []));
  const placed = useMemo(() => layers(JSON.parse(shape), SIZES), [shape]);
  const place = useRef();
  const [width, height] = [placed.width + 2 * MARGIN, placed.height + 2 * MARGIN];
  // At first as large as all of it fits beside each other, if it does; what does not fit is shown from the middle.
  useLayoutEffect(() => {
    const fitting = ZOOMS.findLastIndex((zoom) => zoom <= 1 && width * zoom <= place.current.clientWidth);
    if (zoom === undefined) onZoom(Math.max(1, fitting));
    place.current.scrollLeft = (place.current.scrollWidth - place.current.clientWidth) / 2;
  }, [shape, zoom]);
  const scale = ZOOMS[zoom ?? 0];
  return html`<div class="circuit" ref=${place} tabindex="0" role="region" aria-label="Circuit as a graph; the table has the same figures">
    <svg width=${width * scale} height=${height * scale} viewBox="${-MARGIN} ${-MARGIN} ${width} ${height}" aria-hidden="true">
      <defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path class="edge" d="M1 1l6 3-6 3" /></marker></defs>
      ${placed.edges.map(({ from, to, path }) => html`<${Edge} key="${from}-${to}" path=${path} rows=${operators[from].rows_out} />`)}
      ${placed.nodes.map((node, id) => html`<${Node} key=${id} node=${node} id=${id} operator=${operators[id]} share=${operators[id].busy_us / busy} />`)}
    </svg>
  </div>`;
}

function Table({ operators, busy }) {
  return html`<div class="scroll"><table class="cards">
    <thead><tr><th>Operator</th><th>For</th><th>Of</th><th class="number">Rows in</th><th class="number">Rows out</th><th class="number">State rows</th><th class="number">State</th><th class="number">Time</th></tr></thead>
    <tbody>${operators.map((operator, id) => html`<tr key=${id}>
      <td><b>${id} ${operator.kind}</b></td>
      <td data-label="For" class="break">${operator.label}</td>
      <td data-label="Of">${(operator.inputs ?? []).join(", ") || dash}</td>
      <td class="number" data-label="Rows in">${count(operator.rows_in)}</td>
      <td class="number" data-label="Rows out">${count(operator.rows_out)}</td>
      <td class="number" data-label="State rows">${keeps(operator) ? count(operator.state_rows) : dash}</td>
      <td class="number" data-label="State">${keeps(operator) ? bytes(operator.state_bytes) : dash}</td>
      <td class="number" data-label="Time">${micros(operator.busy_us)} <span class="muted">${Math.round((operator.busy_us / busy) * 100)} %</span></td>
    </tr>`)}</tbody>
  </table></div>`;
}

export function CircuitTab({ pipeline }) {
  const { name } = pipeline;
  const up = isUp(pipeline);
  const poll = usePoll((signal) => (up ? get(of(name, "/circuit"), signal) : undefined), 2000, [name, up]);
  const [view, setView] = useState("graph");
  const [zoom, setZoom] = useState();
  if (!up && !poll.data) return html`<${Banner} kind="info">The circuit is shown, with its figures, while the pipeline is running or paused.<//>`;
  if (!poll.data) return html`<${Waiting} poll=${poll} what="the circuit" />`;
  const { step, operators } = poll.data;
  const busy = Math.max(1, operators.reduce((sum, { busy_us }) => sum + busy_us, 0));
  const button = (name, label) => html`<button aria-pressed=${view === name} onClick=${() => setView(name)}>${label}</button>`;
  return html`<div class="card">
    <div class="card-head">
      <h2>Circuit</h2><span class="muted small">${plural(operators.length, "operator")} after step ${count(step)}; the bar is an operator's share of the time</span>
      <span class="spread"></span>
      ${view === "graph" && html`<div class="group" role="group" aria-label="Size">
        <button aria-label="Smaller" disabled=${zoom === 0} onClick=${() => setZoom(zoom - 1)}>−</button>
        <button aria-label="Larger" disabled=${zoom === ZOOMS.length - 1} onClick=${() => setZoom(zoom + 1)}>+</button>
      </div>`}
      <div class="group" role="group" aria-label="View">${button("graph", "Graph")}${button("table", "Table")}</div>
    </div>
    ${poll.error && html`<${Banner} kind="warn">${poll.error.message}<//>`}
    ${view === "graph" ? html`<${Graph} operators=${operators} busy=${busy} zoom=${zoom} onZoom=${setZoom} />` : html`<${Table} operators=${operators} busy=${busy} />`}
  </div>`;
}
