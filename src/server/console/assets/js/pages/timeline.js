// What happened to a pipeline: as a strip over the charts' time, and as a list.

import { html, useState } from "../html.js";
import { count, micros, plural, time } from "../format.js";

// What the pipeline is from an event on.
const LOOKS = { start: "busy", found: "busy", running: "running", paused: "paused", stop: undefined, crash: "down", give_up: undefined };
const MARKS = ["crash", "give_up", "replay", "checkpoint"];
const FIRST = 25;

const WORDS = {
  start: ["Start", () => "A process was started."],
  found: ["Found", ({ pid }) => `The service began, and found the pipeline running (process ${pid}).`],
  running: ["Running", ({ step }) => `Steps go on after step ${count(step)}.`],
  paused: ["Paused", ({ step }) => `No steps are made after step ${count(step)}.`],
  replay: ["Replay", ({ from, to, records }) => `${from === to ? `Step ${count(from)} was` : `Steps ${count(from)} to ${count(to)} were`} run again from the log: ${plural(records, "row")}, each counted once.`],
  checkpoint: ["Checkpoint", ({ step, usecs, times }) => `${times > 1 ? `${times} checkpoints, the last` : "State"} after step ${count(step)}, in ${micros(usecs)}.`],
  stop: ["Stop", ({ exit }) => `The process ended as was wanted: ${exit}.`],
  crash: ["Crash", ({ step, exit, message }) => `The process ended at step ${count(step)} or later: ${exit}. It is started again.${message.includes(exit) ? "" : `\n${message}`}`],
  give_up: ["Given up", ({ exit, message }) => `The process ended (${exit}) and is not started again: ${message}`],
};
const KINDS = { crash: "bad", give_up: "bad", replay: "warn", running: "good" };

function spans(events, from, now) {
  const all = [];
  events.forEach((event) => {
    if (!(event.kind in LOOKS)) return;
    if (all.length) all.at(-1).end = event.at_msecs;
    all.push({ look: LOOKS[event.kind], begin: event.at_msecs, end: now });
  });
  return all.filter(({ look, end }) => look && end > from).map((part) => ({ ...part, begin: Math.max(from, part.begin) }));
}

export function TimeLine({ events, span, now }) {
  const from = now - span * 1000;
  const place = (at) => `${((at - from) / (span * 10)).toFixed(3)}%`;
  const marks = events.filter(({ kind, at_msecs }) => MARKS.includes(kind) && at_msecs > from);
  const times = (kind) => marks.filter((mark) => mark.kind === kind).length;
  const crashes = times("crash") + times("give_up");
  const said = `${plural(crashes, "crash", "crashes")}, ${plural(times("replay"), "replay")} and ${plural(times("checkpoint"), "checkpoint")}`;
  return html`<section class="card timeline" aria-label="Time line">
    <div class="row"><h3>Time line</h3><span class="muted small">${said}</span><span class="spread"></span>
      <span class="legend" aria-hidden="true"><span class="running">running</span><span class="paused">paused</span><span class="busy">starting, replay</span><span class="down">crash</span><span class="checkpoint">checkpoint</span></span></div>
    <div class="strip" role="img" aria-label="${said} in what is shown">
      ${spans(events, from, now).map(({ look, begin, end }) => html`<span class="span ${look}" style=${{ left: place(begin), width: `${((end - begin) / (span * 10)).toFixed(3)}%` }}></span>`)}
      ${marks.map((mark) => html`<span key=${mark.at_msecs} class="mark ${mark.kind}" title="${WORDS[mark.kind][0]}, ${time(mark.at_msecs)}" style=${{ left: place(mark.at_msecs) }}></span>`)}
    </div>
    <div class="ends"><span>${time(from)}</span><span>${time(now)}</span></div>
  </section>`;
}

// Newest first; checkpoints that follow each other are one line.
function gathered(events) {
  const all = [];
  for (const event of events) {
    const last = all.at(-1);
    if (event.kind === "checkpoint" && last?.kind === "checkpoint") all[all.length - 1] = { ...event, times: last.times + 1 };
    else all.push({ ...event, times: 1 });
  }
  return all.reverse();
}

export function Events({ events }) {
  const [whole, setWhole] = useState(false);
  const all = gathered(events);
  return html`<section class="card" aria-label="Events">
    <div class="card-head"><h2>Events</h2><span class="muted small">since the service began, the last 200</span></div>
    ${all.length === 0 ? html`<p class="muted card-foot">Nothing yet: start the pipeline.</p>` : html`<ol class="events">
      ${(whole ? all : all.slice(0, FIRST)).map((event) => html`<li key=${event.at_msecs} data-kind=${event.kind}>
        <time datetime=${new Date(event.at_msecs).toISOString()}>${time(event.at_msecs)}</time>
        <b class=${KINDS[event.kind] ?? ""}>${WORDS[event.kind]?.[0] ?? event.kind}</b>
        <span>${WORDS[event.kind]?.[1](event)}</span>
      </li>`)}
    </ol>`}
    ${all.length > FIRST && !whole && html`<p class="card-foot"><button onClick=${() => setWhole(true)}>Show all ${all.length}</button></p>`}
  </section>`;
}
