// A pipeline's SQL, compiled while it is typed, and the tables and views that it makes.

import { html, useEffect, useRef, useState } from "../html.js";
import { of, patch, post } from "../api.js";
import { plural } from "../format.js";
import { Banner } from "../ui/parts.js";
import { Editor, go } from "../ui/editor.js";
import { Schema } from "../ui/schema.js";
import { attempt, tell } from "../ui/toasts.js";

// How long typing must rest before the program is compiled.
const REST_MS = 350;

// Programs that were changed and not saved yet, by pipeline: they stay when another page is looked at.
const drafts = new Map();
export const hasDraft = ({ name, program_code }) => drafts.has(name) && drafts.get(name) !== program_code;
export const dropDraft = (name) => drafts.delete(name);

addEventListener("beforeunload", (event) => {
  if (drafts.size > 0) event.preventDefault();
});

function useCompiled(text) {
  const [compiled, setCompiled] = useState({});
  useEffect(() => {
    let current = true;
    const timer = setTimeout(async () => {
      try {
        const { Success, SqlError, SystemError } = await (await post("/v0/validate_program", { program_code: text })).json();
        if (SystemError) throw new Error(SystemError.error);
        if (current) setCompiled({ info: Success?.program_info, problems: SqlError?.info?.messages ?? [] });
      } catch (error) {
        if (current) setCompiled((before) => ({ ...before, error }));
      }
    }, REST_MS);
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [text]);
  return compiled;
}

const Problems = ({ problems, onGo }) => html`<ol class="problems">${problems.map((problem) => html`<li>
  <button class="plain" title="Go there" onClick=${() => onGo(problem)}>${problem.start_line_number}:${problem.start_column}</button>
  <span>${problem.message}</span>
</li>`)}</ol>`;

// Why a changed program cannot be saved now, if so.
const hindered = (pipeline, isStopped) =>
  !isStopped ? "A program can be saved while the pipeline is stopped." :
  pipeline.storage_status === "InUse" ? "The pipeline keeps state of the program that it ran: another program can be saved once the storage is cleared." : undefined;

export function ProgramTab({ pipeline, reload, isStopped, clear }) {
  const { name, program_code } = pipeline;
  const [text, setText] = useState(drafts.get(name) ?? program_code);
  const area = useRef();
  const { info, problems = [], error } = useCompiled(text);
  const dirty = text !== program_code;
  const why = hindered(pipeline, isStopped);
  const type = (text) => {
    setText(text);
    if (text === program_code) drafts.delete(name);
    else drafts.set(name, text);
  };
  const save = () => dirty && !why && attempt(async () => {
    await patch(of(name), { program_code: text });
    drafts.delete(name);
    tell(problems.length ? "Saved. It does not compile yet." : "Saved.");
    reload();
  });
  const jump = ({ start_line_number: line, start_column: column }) => go(area.current, line, column);
  return html`<div class="side">
    <div class="card">
      <div class="card-head">
        <h2>SQL</h2>
        <span class=${problems.length ? "bad small" : "muted small"} role="status" id="compiled">${error ? error.message : problems.length ? plural(problems.length, "error") : info ? "compiles" : "compiling …"}</span>
        <span class="spread"></span>
        ${dirty && html`<button onClick=${() => type(program_code)}>Discard changes</button>`}
        <button class="primary" disabled=${!dirty || Boolean(why)} onClick=${save}>Save</button>
      </div>
      ${dirty && why && html`<${Banner} kind="warn" actions=${isStopped && html`<button class="danger" onClick=${clear}>Clear storage …</button>`}>${why}<//>`}
      <${Editor} tall label="SQL program" describedBy="compiled problems editor-help" value=${text} problems=${problems} onInput=${type} onSave=${save} areaRef=${area} />
      <div id="problems">${problems.length > 0 && html`<${Problems} problems=${problems} onGo=${jump} />`}</div>
      <p id="editor-help" class="muted small card-foot"><kbd>Ctrl</kbd> <kbd>S</kbd> saves. <kbd>Tab</kbd> indents; <kbd>Esc</kbd>, then <kbd>Tab</kbd> leaves the editor.</p>
    </div>
    <${Schema} info=${info ?? pipeline.program_info} />
  </div>`;
}
