// One pipeline: its name and state, what can be done with it, and its tabs.

import { html, useEffect, useRef, useState } from "../html.js";
import { get, of, patch, post, remove, until } from "../api.js";
import { plural } from "../format.js";
import { linkTo, usePoll, useTitle } from "../hooks.js";
import { Banner, Icon, Menu, Stale, State, Waiting, isUp } from "../ui/parts.js";
import { attempt, tell } from "../ui/toasts.js";
import { confirm } from "../ui/dialog.js";
import { SettingsDialog } from "../settings/dialog.js";
import { OverviewTab } from "./overview.js";
import { ProgramTab, dropDraft, hasDraft } from "./program.js";
import { CircuitTab } from "./circuit.js";
import { ConnectorsTab } from "./connectors.js";
import { QueryTab } from "./query.js";
import { LogsTab } from "./logs.js";

const TABS = {
  overview: ["Overview", OverviewTab],
  program: ["Program", ProgramTab],
  circuit: ["Circuit", CircuitTab],
  connectors: ["Connectors", ConnectorsTab],
  query: ["Query", QueryTab],
  logs: ["Logs", LogsTab],
};

const isStopped = (p) => p.deployment_status === "Stopped" && p.deployment_desired_status === "Stopped";

// What the buttons do. Each answers once it has come to pass.
function actions(name, reload) {
  const reach = (path, isSo) => () => attempt(async () => {
    await post(of(name, path));
    reload();
    await until(name, isSo);
    reload();
  });
  const becomes = (status) => (p) => p.deployment_status === status;
  const clear = async () => {
    await post(of(name, "/clear"));
    await until(name, (p) => p.storage_status === "Cleared");
  };
  return {
    start: reach("/start", becomes("Running")),
    startPaused: reach("/start?initial=paused", becomes("Paused")),
    pause: reach("/pause", becomes("Paused")),
    resume: reach("/resume", becomes("Running")),
    stop: reach("/stop?force=false", becomes("Stopped")),
    dismiss: () => attempt(() => post(of(name, "/dismiss_error")).then(reload)),
    checkpoint: () => attempt(async () => {
      const asked = await (await post(of(name, "/checkpoint"))).json();
      for (let turn = 0; turn < 300; turn += 1) {
        const { success } = await get(of(name, `/checkpoint_status?incarnation_uuid=${asked.incarnation_uuid}`));
        if (success >= asked.checkpoint_sequence_number) return tell("The checkpoint is durable.");
        await new Promise((done) => setTimeout(done, 200));
      }
      throw new Error("The checkpoint was not durable within a minute. It is still asked for.");
    }),
    kill: () => confirm({
      title: "Stop without a checkpoint?",
      text: "The process is killed. With fault tolerance the next start replays what the log has; without, what came since the last checkpoint is lost.",
      action: "Kill the process",
      run: async () => {
        await post(of(name, "/stop?force=true"));
        await until(name, becomes("Stopped"));
      },
    }).then(reload),
    clear: () => confirm({
      title: `Clear the storage of ${name}?`,
      text: "State, log and checkpoints are removed: the next start begins at the first row. What outputs have written stays where it is.",
      action: "Clear storage",
      run: clear,
    }).then((done) => {
      reload();
      return done;
    }),
    remove: (p) => confirm({
      title: `Delete ${name}?`,
      text: p.storage_status === "Cleared" ? "Its program and settings are removed." : "Its program, settings, state, log and checkpoints are removed. What outputs have written stays where it is.",
      action: "Delete",
      run: async () => {
        if (p.storage_status !== "Cleared") await clear();
        await remove(of(name));
        dropDraft(name);
        location.hash = "#/";
      },
    }),
  };
}

function Buttons({ pipeline, act, onSettings }) {
  const { deployment_status: status, deployment_desired_status: desired, program_status, storage_status } = pipeline;
  const stopped = isStopped(pipeline);
  const compiles = program_status === "Success";
  return html`<div class="row actions" role="group" aria-label="Actions">
    ${stopped && html`<button class="primary" disabled=${!compiles || storage_status === "Clearing"} title=${compiles ? undefined : program_status === "CompilingSql" ? "The program is being compiled" : "The program does not compile"} onClick=${act.start}><${Icon} name="play" />Start</button>`}
    ${status === "Running" && html`<button onClick=${act.pause}><${Icon} name="pause" />Pause</button>`}
    ${status === "Paused" && html`<button class="primary" onClick=${act.resume}><${Icon} name="play" />Resume</button>`}
    ${!stopped && html`<button disabled=${desired === "Stopped"} onClick=${act.stop}><${Icon} name="stop" />Stop</button>`}
    ${isUp(pipeline) && html`<button onClick=${act.checkpoint}>Checkpoint</button>`}
    <button class="icon" aria-label="Settings" title="Settings: storage, fault tolerance and more" onClick=${onSettings}><${Icon} name="gear" /></button>
    <${Menu} label="More actions">
      <button disabled=${!stopped || !compiles} onClick=${act.startPaused}>Start paused</button>
      <button disabled=${stopped} onClick=${act.kill}>Stop without a checkpoint …</button>
      <button disabled=${!stopped || storage_status !== "InUse"} onClick=${act.clear}>Clear storage …</button>
      <button class="bad" disabled=${!stopped} onClick=${() => act.remove(pipeline)}>Delete …</button>
    <//>
  </div>`;
}

function Troubles({ pipeline, onDismiss }) {
  const { name, deployment_error: failed, program_error: error } = pipeline;
  const problems = error?.sql_compilation?.messages?.length;
  return html`
    ${failed && html`<${Banner} actions=${html`<button onClick=${onDismiss}>Dismiss</button>`}><b>Stopped by an error</b> (${failed.details?.exit}): ${failed.message}<//>`}
    ${problems > 0 && html`<${Banner} kind="warn" actions=${html`<a href=${linkTo(name, "program")}>See the program</a>`}>The program does not compile: ${plural(problems, "error")}.<//>`}
    ${error?.system_error && html`<${Banner} kind="warn" actions=${html`<a href=${linkTo(name, "program")}>See the program</a>`}>The program does not compile: ${error.system_error}.<//>`}
    ${pipeline.deployment_status === "Unavailable" && html`<${Banner} kind="warn">Its process ended without being asked to. It is started again, and resumes at the exact next row.<//>`}`;
}

export function PipelinePage({ name, tab = "overview" }) {
  const whole = useRef();
  // The program and what it compiled to come once, not every second.
  const poll = usePoll(async (signal) => {
    const now = await get(of(name, "?selector=status"), signal);
    const isKnown = ["id", "version", "program_status"].every((field) => whole.current?.[field] === now[field]);
    whole.current = isKnown ? { ...whole.current, ...now } : await get(of(name), signal);
    return whole.current;
  }, 1000, [name]);
  const [settings, setSettings] = useState(false);
  const act = useRef();
  act.current ??= actions(name, poll.reload);
  const [title, Tab] = TABS[tab] ?? TABS.overview;
  useTitle(`${title} of ${name}`);
  // Back, with the dialog open.
  useEffect(() => setSettings(false), [tab]);
  const tabs = useRef();
  useEffect(() => tabs.current?.querySelector("[aria-current]").scrollIntoView({ block: "nearest", inline: "nearest" }), [tab, Boolean(poll.data)]);
  const pipeline = poll.data;
  if (poll.error?.status === 404) {
    return html`<div class="card empty"><h1>No pipeline “${name}”</h1><p>It was deleted, or never there.</p><a href="#/">All pipelines</a></div>`;
  }
  if (!pipeline) return html`<${Waiting} poll=${poll} what=${name} />`;
  const save = (config) => patch(of(name), { runtime_config: config });
  return html`<div class="stack">
    <div class="head">
      <div class="title"><h1>${name}</h1><${State} pipeline=${pipeline} /></div>
      <${Buttons} pipeline=${pipeline} act=${act.current} onSettings=${() => setSettings(true)} />
    </div>
    ${pipeline.description && html`<p class="muted break">${pipeline.description}</p>`}
    <${Stale} error=${poll.error} />
    <${Troubles} pipeline=${pipeline} onDismiss=${act.current.dismiss} />
    <nav class="tabs" ref=${tabs} aria-label="Parts of the pipeline">
      ${Object.entries(TABS).map(([id, [label, Page]]) => html`<a href=${linkTo(name, id)} aria-current=${Page === Tab ? "page" : undefined}>${label}${id === "program" && hasDraft(pipeline) ? " •" : ""}</a>`)}
    </nav>
    <${Tab} key=${tab} pipeline=${pipeline} reload=${poll.reload} isStopped=${isStopped(pipeline)} clear=${act.current.clear} />
    ${settings && html`<${SettingsDialog} pipeline=${pipeline} isStopped=${isStopped(pipeline)} save=${save} onClose=${() => {
      setSettings(false);
      poll.reload();
    }} />`}
  </div>`;
}
