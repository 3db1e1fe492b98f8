// What a pipeline's process says, as it says it.

import { html, useEffect, useLayoutEffect, useRef, useState } from "../html.js";
import { of, pieces } from "../api.js";
import { Banner } from "../ui/parts.js";

// Characters that are kept: the end of it.
const MOST = 400_000;

export function LogsTab({ pipeline: { name } }) {
  const [text, setText] = useState("");
  const [error, setError] = useState();
  const [follow, setFollow] = useState(true);
  const [filter, setFilter] = useState("");
  const place = useRef();
  useEffect(() => {
    const ended = new AbortController();
    let timer;
    const read = async () => {
      try {
        let whole = "";
        for await (const piece of pieces(of(name, "/logs"), ended.signal)) {
          whole = (whole + piece).slice(-MOST);
          setText(whole);
          setError(undefined);
        }
      } catch (error) {
        if (!ended.signal.aborted) setError(error);
      }
      // The service ended, or the connection broke: from the beginning.
      if (!ended.signal.aborted) timer = setTimeout(read, 2000);
    };
    read();
    return () => {
      ended.abort();
      clearTimeout(timer);
    };
  }, [name]);
  const shown = filter ? text.split("\n").filter((line) => line.toLowerCase().includes(filter.toLowerCase())).join("\n") : text;
  useLayoutEffect(() => {
    if (follow) place.current.scrollTop = place.current.scrollHeight;
  }, [shown, follow]);
  return html`<div class="stack">
    ${error && html`<${Banner} kind="warn">${error.message}. Trying again.<//>`}
    <div class="card">
      <div class="card-head">
        <h2>Log</h2><span class="spread"></span>
        <div><input type="search" aria-label="Show lines with" placeholder="Show lines with …" value=${filter} onInput=${(e) => setFilter(e.target.value)} /></div>
        <button aria-pressed=${follow} onClick=${() => setFollow(!follow)}>Follow</button>
      </div>
      <pre class="logs" ref=${place} tabindex="0" role="log" aria-label="Log">${shown || (filter ? "No line has it." : "")}</pre>
    </div>
  </div>`;
}
