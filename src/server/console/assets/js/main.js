// The shell: the bar at the top, the page that the address names, and the question for a key.

import { html, render, useEffect, useRef, useState } from "./html.js";
import { get, key } from "./api.js";
import { THEMES, usePoll, useRoute, useTheme } from "./hooks.js";
import { Toasts } from "./ui/toasts.js";
import { KeyPage } from "./pages/key.js";
import { ListPage } from "./pages/list.js";
import { PipelinePage } from "./pages/pipeline.js";

function Bar({ theme, setTheme, onForget }) {
  const config = usePoll((signal) => get("/v0/config", signal), 600_000, []);
  return html`<header class="bar">
    <a class="skip" href="#main" onClick=${(event) => {
      event.preventDefault();
      document.getElementById("main").focus();
    }}>Skip to content</a>
    <a class="brand" href="#/"><img src="/console/icon.svg" alt="" />Backstay</a>
    <span class="muted small version">${config.data?.revision}</span>
    <span class="spread"></span>
    ${onForget && html`<button class="plain" onClick=${onForget}>Forget key</button>`}
    <div class="group" role="group" aria-label="Theme">
      ${THEMES.map((name) => html`<button aria-pressed=${theme === name} onClick=${() => setTheme(name)}>${name[0].toUpperCase() + name.slice(1)}</button>`)}
    </div>
  </header>`;
}

function Page({ route: [what, name, tab] }) {
  if (what === "pipelines" && name) return html`<${PipelinePage} key=${name} name=${name} tab=${tab} />`;
  return html`<${ListPage} />`;
}

function App() {
  const [theme, setTheme] = useTheme();
  const route = useRoute();
  const main = useRef();
  const [state, setState] = useState("asking");
  useEffect(() => key.onRefused(() => setState("locked")), []);
  // Asked for nothing but whether a key is needed, or the one that is there is right; any other failure is the page's to tell.
  useEffect(() => {
    get("/v0/config").then(() => setState("open"), (error) => error.status !== 401 && setState("open"));
  }, []);
  // Who changes the page by keyboard goes on in the new one.
  const at = route.slice(0, 2).join("/");
  const before = useRef(at);
  useEffect(() => {
    if (before.current !== at) main.current?.focus();
    before.current = at;
  }, [at]);
  if (state === "asking") return null;
  if (state === "locked") return html`<${KeyPage} onOpen=${() => setState("open")} />`;
  return html`
    <${Bar} theme=${theme} setTheme=${setTheme} onForget=${key.get() && key.forget} />
    <main id="main" tabindex="-1" ref=${main}><${Page} route=${route} /></main>
    <${Toasts} />`;
}

render(html`<${App} />`, document.getElementById("app"));
