// Ad-hoc queries over what a pipeline keeps, after the step that is under way.

import { html, useMemo, useRef, useState } from "../html.js";
import { lines, of } from "../api.js";
import { count, plural } from "../format.js";
import { Banner, isUp } from "../ui/parts.js";
import { Editor } from "../ui/editor.js";
import { Schema } from "../ui/schema.js";

// Rows that are shown; the rest of an answer is not read.
const MOST = 1000;

// What was typed last, by pipeline.
const typed = new Map();

// Numbers as the service wrote them: a BIGINT has more digits than a number of JavaScript's.
const exactly = (_, value, context) => (typeof value === "number" && context?.source !== undefined ? { digits: context.source } : value);

function Cell({ value }) {
  if (value === null || value === undefined) return html`<td class="muted">NULL</td>`;
  if (typeof value === "number") return html`<td class="number">${value}</td>`;
  if (value.digits !== undefined) return html`<td class="number">${value.digits}</td>`;
  return html`<td>${typeof value === "object" ? plain(value) : String(value)}</td>`;
}

// Nested values as JSON, with the digits that came.
const plain = (value) =>
  value === null ? "null"
  : value.digits !== undefined ? value.digits
  : Array.isArray(value) ? `[${value.map(plain).join(", ")}]`
  : typeof value === "object" ? `{${Object.entries(value).map(([key, inner]) => `${JSON.stringify(key)}: ${plain(inner)}`).join(", ")}}`
  : JSON.stringify(value);

async function run(name, sql, signal) {
  const rows = [];
  for await (const line of lines(of(name, `/query?format=json&sql=${encodeURIComponent(sql)}`), signal)) {
    if (rows.length === MOST) return { rows, more: true };
    if (line) rows.push(JSON.parse(line, exactly));
  }
  return { rows, more: false };
}

function Results({ answer: { rows, more, took } }) {
  const columns = Object.keys(rows[0] ?? {});
  const isNumber = (column) => rows.some((row) => row[column]?.digits !== undefined || typeof row[column] === "number");
  return html`<section class="card" aria-label="Result">
    <div class="card-head"><h2>Result</h2><span class="muted small" role="status">${more ? `the first ${count(MOST)} rows; there are more` : plural(rows.length, "row")}, ${took} ms</span></div>
    ${rows.length > 0 && html`<div class="scroll results" tabindex="0" role="region" aria-label="Rows"><table>
      <thead><tr>${columns.map((column) => html`<th scope="col" class=${isNumber(column) ? "number" : ""}>${column}</th>`)}</tr></thead>
      <tbody>${rows.map((row) => html`<tr>${columns.map((column) => html`<${Cell} value=${row[column]} />`)}</tr>`)}</tbody>
    </table></div>`}
  </section>`;
}

export function QueryTab({ pipeline }) {
  const { name, program_info: info, runtime_config: config } = pipeline;
  const first = info?.schema.outputs.concat(info.schema.inputs).find((relation) => relation.materialized)?.name;
  const quoted = (relation) => (/^[a-z_][a-z0-9_]*$/.test(relation) ? relation : `"${relation.replaceAll('"', '""')}"`);
  const [sql, setSql] = useState(typed.get(name) ?? (first ? `SELECT * FROM ${quoted(first)} LIMIT 100` : "SELECT 1"));
  const [answer, setAnswer] = useState();
  const running = useRef();
  const type = (text) => {
    typed.set(name, text);
    setSql(text);
  };
  const ask = async (text) => {
    running.current?.abort();
    const own = new AbortController();
    running.current = own;
    const begun = performance.now();
    setAnswer({ busy: true });
    try {
      const { rows, more } = await run(name, text, own.signal);
      setAnswer({ rows, more, took: Math.round(performance.now() - begun) });
    } catch (error) {
      if (running.current === own) setAnswer(error.name === "AbortError" ? undefined : { error });
    }
  };
  const pick = (relation) => {
    const text = `SELECT * FROM ${quoted(relation)} LIMIT 100`;
    type(text);
    ask(text);
  };
  const up = isUp(pipeline);
  // Typing does not draw the rows anew.
  const results = useMemo(() => answer?.rows && html`<${Results} answer=${answer} />`, [answer]);
  const why = !up ? "A pipeline is asked while it is running or paused." : config.storage === null ? "A pipeline without storage cannot be asked: switch it on in the settings." : undefined;
  return html`<div class="side">
    <div class="stack">
      <div class="card">
        <div class="card-head"><h2>Query</h2><span class="muted small" id="query-help">a SELECT over materialized tables and views; <kbd>Ctrl</kbd> <kbd>Enter</kbd> runs it</span><span class="spread"></span>
          ${answer?.busy ? html`<button onClick=${() => running.current.abort()}>Cancel</button>` : html`<button class="primary" disabled=${Boolean(why)} onClick=${() => ask(sql)}>Run</button>`}</div>
        <${Editor} label="SQL query" describedBy="query-help" value=${sql} onInput=${type} onRun=${() => !why && ask(sql)} />
      </div>
      ${why && html`<${Banner} kind="info">${why}<//>`}
      ${answer?.busy && html`<p class="muted" role="status">Asking …</p>`}
      ${answer?.error && html`<${Banner}><span class="mono">${answer.error.message}</span><//>`}
      ${results}
    </div>
    <${Schema} info=${info} onPick=${up && pick} />
  </div>`;
}
