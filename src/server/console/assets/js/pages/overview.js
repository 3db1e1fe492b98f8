// How a pipeline fares: figures of now, its time line, and charts of the last minutes.

import { html, useState } from "../html.js";
import { get, of } from "../api.js";
import { age, brief, bytes, count, dash, micros, plural } from "../format.js";
import { useHistory, usePoll } from "../hooks.js";
import { Chart } from "../ui/chart.js";
import { Waiting, hasFigures } from "../ui/parts.js";
import { Events, TimeLine } from "./timeline.js";

const SPANS = [[60, "1 min"], [300, "5 min"], [900, "15 min"]];

// Round numbers of bytes are powers of two.
const SIZES = Array.from({ length: 50 }, (_, power) => 2 ** power);
const CHARTS = [
  { title: "Rows a second", format: brief, least: 10, series: [{ field: "records_per_second", label: "rows" }] },
  { title: "Rows that wait", format: brief, least: 10, series: [{ field: "buffered_records", label: "rows" }] },
  { title: "Step time", format: micros, least: 1000, series: [{ field: "step_mean_usecs", label: "mean" }, { field: "step_p99_usecs", label: "99 %" }] },
  { title: "Commit latency", format: micros, least: 1000, series: [{ field: "commit_mean_usecs", label: "mean" }, { field: "commit_p99_usecs", label: "99 %" }] },
  { title: "State", format: bytes, steps: SIZES, least: 2 ** 20, series: [{ field: "state_bytes", label: "bytes" }] },
  { title: "Log", format: bytes, steps: SIZES, least: 2 ** 20, series: [{ field: "log_bytes", label: "bytes" }] },
];

function Figures({ pipeline, stats }) {
  const now = stats && pipeline.backstay;
  const { global_metrics: all, backstay: ours } = stats ?? {};
  const checkpoint = ours?.checkpoint;
  const figure = (name, value, more) => html`<div><dt>${name}</dt><dd>${value}<small>${more}</small></dd></div>`;
  return html`<dl class="figures">
    ${figure("Rows a second", now ? brief(now.records_per_second) : dash)}
    ${figure("Rows in all", all ? brief(all.total_processed_records) : dash)}
    ${figure("Rows waiting", all ? brief(all.buffered_input_records) : dash)}
    ${figure("Step", ours ? count(ours.step) : dash, ours && ours.step > ours.delivered_step ? `${count(ours.step - ours.delivered_step)} undelivered` : "")}
    ${figure("Last checkpoint", checkpoint ? age(checkpoint.age_msecs) : dash, checkpoint ? `ago, step ${count(checkpoint.step)}` : "")}
    ${figure("State", bytes(ours?.state_bytes), ours?.state_bytes != null ? plural(ours.state_records, "row") : "")}
    ${figure("Memory", all ? bytes(all.rss_bytes) : dash)}
    ${figure("Rows left out", ours ? count(ours.parse_errors + ours.evaluation_errors + ours.late_records) : dash)}
  </dl>`;
}

export function OverviewTab({ pipeline }) {
  const { name } = pipeline;
  const [chosen, setChosen] = useState();
  const history = useHistory((after, signal) => get(of(name, `/history?after=${after}`), signal), name);
  const up = hasFigures(pipeline);
  const stats = usePoll((signal) => (up ? get(of(name, "/stats"), signal).catch(() => undefined) : undefined), 1000, [name, up]);
  if (!history.data) return html`<${Waiting} poll=${history} what="figures" />`;
  const { samples, events } = history.data;
  const now = Date.now();
  // Of a history that has just begun the last minute shows more.
  const span = chosen ?? (now - (samples[0]?.at_msecs ?? 0) < 90_000 ? 60 : 300);
  return html`<div class="stack">
    <${Figures} pipeline=${pipeline} stats=${stats.data} />
    <div class="row">
      <h2>The last minutes</h2>
      <span class="spread"></span>
      <div class="group" role="group" aria-label="Time that is shown">
        ${SPANS.map(([seconds, label]) => html`<button aria-pressed=${span === seconds} onClick=${() => setChosen(seconds)}>${label}</button>`)}
      </div>
    </div>
    <${TimeLine} events=${events} span=${span} now=${now} />
    <div class="charts">${CHARTS.map((chart) => html`<${Chart} key=${chart.title} ...${chart} samples=${samples} events=${events} span=${span} now=${now} />`)}</div>
    <${Events} events=${events} />
  </div>`;
}
