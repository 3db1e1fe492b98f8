// An SQL editor: a text area, under which its text is painted in colours, and over which errors are marked in place. The browser's own
// text area brings undo, selection, input methods and screen readers.

import { html, useLayoutEffect, useMemo, useRef } from "../html.js";

const TOKEN = /(--[^\n]*|\/\*[\s\S]*?(?:\*\/|$))|('(?:[^']|'')*'?)|("(?:[^"]|"")*"?)|\b(\d+(?:\.\d+)?)\b|\b([a-z_]\w*)\b/gi;
const KEYWORDS = new Set(
  ("select from where group by having order limit offset as with create table view materialized not null primary key and or in is case when then " +
    "else end join left right full inner outer cross on using union intersect except all distinct between like exists cast values over partition " +
    "interval lateness append_only true false asc desc filter rollup cube grouping sets qualify lateral fetch first rows only local").split(" "),
);

function paint(text) {
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(TOKEN)) {
    const kind = found[1] ? "c" : found[2] ? "s" : found[4] ? "n" : found[5] && KEYWORDS.has(found[5].toLowerCase()) ? "k" : undefined;
    if (!kind) continue;
    parts.push(text.slice(end, found.index), html`<span class="tok-${kind}">${found[0]}</span>`);
    end = found.index + found[0].length;
  }
  return [...parts, text.slice(end)];
}

// A line with its errors underlined, and told behind it.
function mark(line, problems) {
  const parts = [];
  let end = 0;
  for (const { start_column, end_column } of [...problems].sort((a, b) => a.start_column - b.start_column)) {
    const chars = Array.from(line);
    const from = Math.max(end, start_column - 1);
    parts.push(chars.slice(end, from).join(""), html`<u>${chars.slice(from, end_column).join("") || " "}</u>`);
    end = Math.max(from, end_column);
  }
  parts.push(Array.from(line).slice(end).join(""));
  return html`${parts}<i>${problems[0].message.split("\n")[0]}</i>`;
}

function Marks({ text, problems }) {
  const lines = text.split("\n");
  return html`<pre class="marks" aria-hidden="true">${lines.map((line, i) => {
    const here = problems.filter((problem) => problem.start_line_number === i + 1);
    return html`${here.length ? mark(line, here) : line}${"\n"}`;
  })}</pre>`;
}

// Puts the caret at a place of the text.
export function go(area, line, column) {
  const before = area.value.split("\n").slice(0, line - 1);
  const at = before.reduce((sum, text) => sum + text.length + 1, 0) + column - 1;
  area.focus();
  area.setSelectionRange(at, at);
}

export function Editor({ value, problems = [], onInput, onSave, onRun, label, describedBy, tall, areaRef }) {
  const own = useRef();
  const area = areaRef ?? own;
  const painted = useMemo(() => paint(value), [value]);
  // Typing goes on where the caret is: the text is set only if it came from elsewhere.
  useLayoutEffect(() => {
    if (area.current.value !== value) area.current.value = value;
  }, [value]);
  const leaving = useRef(false);
  const pressed = (event) => {
    if (event.key === "Escape") {
      leaving.current = true;
      return;
    }
    if (event.key === "Tab" && !event.shiftKey && !leaving.current) {
      event.preventDefault();
      // The only way that keeps the browser's undo.
      document.execCommand("insertText", false, "  ");
    }
    leaving.current = false;
    if (!(event.ctrlKey || event.metaKey)) return;
    const act = event.key === "s" ? onSave : event.key === "Enter" ? onRun : undefined;
    if (act) {
      event.preventDefault();
      act();
    }
  };
  const wrong = new Set(problems.map((problem) => problem.start_line_number));
  const numbers = value.split("\n").map((_, i) => html`${wrong.has(i + 1) ? html`<b>${i + 1}</b>` : i + 1}${"\n"}`);
  return html`<div class="editor ${tall ? "tall" : ""}">
    <div class="gutter" aria-hidden="true">${numbers}</div>
    <div class="code">
      <pre class="paint" aria-hidden="true">${painted}${"\n"}</pre>
      <${Marks} text=${value} problems=${problems} />
      <textarea ref=${area} aria-label=${label} aria-describedby=${describedBy} aria-invalid=${problems.length > 0} wrap="off"
        spellcheck=${false} autocapitalize="off" autocomplete="off" onInput=${(event) => onInput(event.target.value)} onKeyDown=${pressed}></textarea>
    </div>
  </div>`;
}
