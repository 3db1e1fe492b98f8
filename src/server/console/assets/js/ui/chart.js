// A chart over time (uPlot). Its newest values, or those under the pointer, stand in its heading; crashes and replays are lines in it.

import uPlot from "../../vendor/uplot.mjs";
import { html, useEffect, useMemo, useRef, useState } from "../html.js";
import { useColours } from "../hooks.js";
import { time } from "../format.js";

// Without samples for longer than this there was no process: the line is broken.
const GAP_MS = 3000;

// A colour of the style sheets, as the canvas wants it.
function colour(name) {
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.color = `var(--${name})`;
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function columns(samples, series) {
  const all = [[], ...series.map(() => [])];
  let before;
  for (const sample of samples) {
    if (before && sample.at_msecs - before > GAP_MS) {
      all[0].push((before + 1000) / 1000);
      series.forEach((_, i) => all[i + 1].push(null));
    }
    before = sample.at_msecs;
    all[0].push(before / 1000);
    series.forEach(({ field }, i) => all[i + 1].push(sample[field]));
  }
  return all;
}

function options({ series, format, steps, least, range, marks, onPoint }) {
  const [text, line, ...strokes] = ["muted", "line", "accent", "second"].map(colour);
  const [bad, warn] = [colour("bad"), colour("warn")];
  const axis = { stroke: text, font: "11px system-ui, sans-serif", grid: { stroke: line, width: 1 }, ticks: { show: false } };
  const drawMarks = (plot) => {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.setLineDash([4, 3]);
    for (const { at_msecs, kind } of marks.current) {
      const x = Math.round(plot.valToPos(at_msecs / 1000, "x", true));
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.strokeStyle = kind === "replay" ? warn : bad;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  };
  return {
    height: 150,
    width: 300,
    legend: { show: false },
    padding: [8, 30, 0, 0],
    cursor: { sync: { key: "pipeline" }, drag: { x: false, y: false }, y: false, points: { size: 6 } },
    scales: { x: { range: () => range.current }, y: { range: (_, low, high) => [0, Math.max(high ?? 0, least) * 1.1] } },
    axes: [
      { ...axis, size: 28, space: 60, values: (_, ticks) => ticks.map((tick) => time(tick * 1000)) },
      { ...axis, size: 62, space: 30, incrs: steps, values: (_, ticks) => ticks.map((tick) => (tick ? format(tick) : "0")) },
    ],
    series: [{}, ...series.map(({ field }, i) => ({
      stroke: strokes[i],
      width: 1.75,
      fill: series.length === 1 ? `color-mix(in srgb, ${strokes[i]} 14%, transparent)` : undefined,
      points: { show: false },
      label: field,
    }))],
    hooks: { draw: [drawMarks], setCursor: [(plot) => onPoint(plot.cursor.idx)] },
  };
}

// `least`: what the axis reaches at least; `steps`: distances that its ticks may have; `span`: the seconds that are shown, up to `now`.
export function Chart({ title, series, format, steps, least, samples, events, span, now }) {
  const place = useRef();
  const plot = useRef();
  const range = useRef([0, 1]);
  const marks = useRef([]);
  const data = useMemo(() => columns(samples, series), [samples, series]);
  const [point, setPoint] = useState(null);
  const colours = useColours();
  range.current = [now / 1000 - span, now / 1000];
  marks.current = events.filter(({ kind }) => kind === "crash" || kind === "give_up" || kind === "replay");
  useEffect(() => {
    const made = new uPlot(options({ series, format, steps, least, range, marks, onPoint: setPoint }), data, place.current);
    plot.current = made;
    const resized = new ResizeObserver(([entry]) => made.setSize({ width: Math.max(120, Math.floor(entry.contentRect.width)), height: 150 }));
    resized.observe(place.current);
    return () => {
      resized.disconnect();
      made.destroy();
    };
  }, [colours]);
  useEffect(() => plot.current.setData(data), [samples, events, now, span]);
  // Without a process there is no newest value.
  const newest = now - (samples.at(-1)?.at_msecs ?? 0) < GAP_MS ? data[0].length - 1 : -1;
  const shown = point ?? newest;
  const value = (i) => format(data[i + 1][shown]);
  const said = series.map(({ label }, i) => `${label} ${value(i)}`).join(", ");
  return html`<figure class="card chart">
    <figcaption>
      <b>${title}</b>
      <span>${point != null && html`<span class="muted small">${time(data[0][point] * 1000)}</span>`}
        ${series.map(({ label }, i) => html`<span class="value series-${i}"><span>${series.length > 1 ? `${label} ` : ""}${value(i)}</span></span>`)}</span>
    </figcaption>
    <div class="plot" ref=${place} role="img" aria-label="${title} over time; now: ${said}"></div>
  </figure>`;
}
