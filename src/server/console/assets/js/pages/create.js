// A new pipeline: a name, and what its program begins with.

import { html, useState } from "../html.js";
import { post } from "../api.js";
import { linkTo } from "../hooks.js";
import { Dialog } from "../ui/dialog.js";

const EXAMPLE = `-- Five million orders, made up by a generator.
CREATE TABLE orders (
  id BIGINT NOT NULL PRIMARY KEY,
  customer BIGINT NOT NULL,
  cents BIGINT NOT NULL
) WITH ('connectors' = '[{
  "name": "made",
  "transport": {"name": "datagen", "config": {"plan": [{
    "limit": 5000000,
    "fields": {
      "customer": {"strategy": "uniform", "range": [0, 100]},
      "cents": {"strategy": "uniform", "range": [100, 20000]}
    }
  }]}}
}]');

CREATE MATERIALIZED VIEW spent AS
SELECT customer, count(*) AS orders, sum(cents) AS cents
FROM orders GROUP BY customer;
`;

const EMPTY = `CREATE TABLE t (
  id BIGINT NOT NULL PRIMARY KEY,
  name VARCHAR
);

CREATE MATERIALIZED VIEW v AS
SELECT name, count(*) AS n FROM t GROUP BY name;
`;

export function CreateDialog({ onClose }) {
  const [name, setName] = useState("");
  const [description, setDescription] = useState("");
  const [program, setProgram] = useState("example");
  const isName = /^[A-Za-z0-9_-]{1,100}$/.test(name);
  const wrong = name && !isName ? "1 to 100 letters, digits, “_” or “-”." : undefined;
  const submit = async () => {
    if (!isName) throw new Error("Give it a name of 1 to 100 letters, digits, “_” or “-”.");
    await post("/v0/pipelines", { name, description, program_code: program === "example" ? EXAMPLE : EMPTY });
    onClose();
    location.hash = linkTo(name, "program");
  };
  const choice = (value, title, help) => html`<label class="choice">
    <input type="radio" name="program" value=${value} checked=${program === value} onChange=${() => setProgram(value)} />
    <span><b>${title}</b><span class="help">${help}</span></span>
  </label>`;
  return html`<${Dialog} title="New pipeline" onClose=${onClose} onSubmit=${submit}
    actions=${(busy) => html`<button class="primary" disabled=${busy}>Create</button>`}>
    <div class="field">
      <label for="name">Name</label>
      <input id="name" autofocus autocomplete="off" spellcheck=${false} value=${name} onInput=${(e) => setName(e.target.value)}
        aria-invalid=${Boolean(wrong)} aria-describedby="name-help" />
      <span id="name-help" class=${wrong ? "wrong" : "help"}>${wrong ?? "Letters, digits, “_” and “-”. It stands in the addresses of the REST API."}</span>
    </div>
    <div class="field">
      <label for="description">Description <span class="muted">(optional)</span></label>
      <input id="description" autocomplete="off" value=${description} onInput=${(e) => setDescription(e.target.value)} />
    </div>
    <fieldset>
      <legend>Program to begin with</legend>
      ${choice("example", "An example", "A generator's orders and a view over them: it can be started as it is.")}
      ${choice("empty", "A frame", "One table that rows can be pushed to, and one view.")}
    </fieldset>
    <p class="muted small">It is created stopped, exactly once, with storage: all of this can be changed.</p>
  <//>`;
}
