// The tables and views of a program, with their columns.

import { html } from "../html.js";

function typeOf({ type, precision, scale, component, nullable }) {
  const name = type === "ARRAY" ? `${typeOf(component)}[]` : type === "DECIMAL" ? `DECIMAL(${precision}, ${scale})` : type;
  return nullable ? name : `${name} NOT NULL`;
}

function Relation({ relation, onPick }) {
  const { name, fields, primary_key: key, materialized } = relation;
  return html`<li><details>
    <summary>${name}</summary>
    <dl>${fields.map((field) => html`<dt>${field.name}${key?.includes(field.name) ? " (key)" : ""}</dt><dd>${typeOf(field.columntype)}</dd>`)}</dl>
    ${onPick && (materialized ? html`<button onClick=${() => onPick(name)}>Ask for its rows</button>` : html`<p class="muted small">Its rows are not kept: they cannot be asked for.</p>`)}
  </details></li>`;
}

export function Schema({ info, onPick }) {
  const part = (title, relations) => html`<div>
    <h3>${title}</h3>
    ${relations.length ? html`<ul class="schema">${relations.map((relation) => html`<${Relation} key=${relation.name} relation=${relation} onPick=${onPick} />`)}</ul>` : html`<p class="muted small">None.</p>`}
  </div>`;
  if (!info) return html`<aside class="card padded"><p class="muted">Tables and views are shown here once the program compiles.</p></aside>`;
  return html`<aside class="card padded stack" aria-label="Tables and views">
    ${part("Tables", info.schema.inputs)}
    ${part("Views", info.schema.outputs)}
  </aside>`;
}
