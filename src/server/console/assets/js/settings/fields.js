// The keys of a pipeline's runtime configuration, with their help and checks. Defaults are those of docs/pipelines.md.

import { exactBytes, parseBytes } from "../format.js";

const whole = (least, most) => (text) => {
  const n = Number(text);
  if (!/^\d+$/.test(text.trim()) || n < least || n > (most ?? Number.MAX_SAFE_INTEGER)) {
    return { wrong: most === undefined ? `A whole number, ${least} or more.` : `A whole number from ${least} to ${most}.` };
  }
  return { value: n };
};

const size = (text) => {
  const n = parseBytes(text);
  return Number.isSafeInteger(n) && n > 0 ? { value: n } : { wrong: "A size such as 256 MiB, or bytes." };
};

const number = (key, label, help, standard, least, most) => ({ key, label, help, standard, read: whole(least, most), show: String });
const room = (key, label, help, standard) => ({ key, label, help, standard, read: size, show: exactBytes });

export const STORAGE = [
  number("cache_mib", "Cache (MiB)", "What cached blocks of state may take in memory.", "256", 0),
  room("max_memtable_bytes", "State in memory", "What is not on disk yet; beyond it, it is written between checkpoints.", "256 MiB"),
  room("max_log_bytes", "Log", "A larger log takes a checkpoint, whatever the interval says.", "1 GiB"),
  room("quota_bytes", "Disk", "The store may take no more than this. A pipeline at its bound stops, and resumes exactly once there is room.", "no bound"),
];

export const STEPS = [
  number("workers", "Workers", "Threads that work on a step. Kept state moves to a new number at the next start.", "all cores", 1, 256),
  number("max_rows_per_step", "Most rows in a step", "Of one input.", "50000", 1),
  number("min_batch_size_records", "Fewest rows in a step", "A step waits for this many, but no longer than the delay beside.", "0", 0),
  number("max_buffering_delay_usecs", "Longest wait (µs)", "How long a step waits for the fewest rows.", "0", 0),
  number("rows_per_step", "Exact rows in a step", "Fixes where steps are cut: two runs over the same input then make the same steps.", "not fixed", 1),
  number("clock_resolution_usecs", "Clock (µs)", "The least time between a step and one that is made only because time has passed.", "1000000", 1),
  room("max_pending_output_bytes", "Undelivered output", "Inputs wait while outputs hold more than this.", "256 MiB"),
];

export const HTTP = [
  room("egress_max_bytes", "Changes kept of a view", "In memory, for listeners that come back.", "16 MiB"),
  number("egress_max_age_secs", "… for (seconds)", "A listener that comes back later is told that it fell behind.", "3600", 1),
  number("idempotency_max_keys", "Idempotency keys of a table", "A key makes a push that is repeated one push. Some 60 bytes of memory each.", "1000000", 1),
  number("idempotency_max_age_secs", "… for (seconds)", "A push that is repeated later is another one.", "86400", 1),
];

export const MODELS = [
  ["exactly_once", "Exactly once", "Each row counts once, across crashes and loss of power: steps are logged, and replayed from the newest checkpoint."],
  ["at_least_once", "At least once", "No log. A crash goes back to the last checkpoint: nothing is lost, outputs may repeat what came after it."],
  ["none", "None", "State is kept at a graceful stop only. After a crash the pipeline goes on from there, and what came since is lost or read again."],
];

export const ON_ERROR = [
  ["on_parse_error", "An input row does not parse", "skip"],
  ["on_evaluation_error", "An expression fails for a row", "stop"],
];

const texts = (fields, config) => Object.fromEntries(fields.map(({ key, show }) => [key, config?.[key] == null ? "" : show(config[key])]));

// What the dialog edits, of a configuration as the API shows it.
export function formOf(config) {
  const { storage, fault_tolerance: ft } = config;
  return {
    stored: storage !== null && storage !== false,
    storage: texts(STORAGE, typeof storage === "object" ? storage : undefined),
    model: ft?.model ?? "none",
    timed: ft?.checkpoint_interval_secs !== null,
    interval: String(ft?.checkpoint_interval_secs ?? 60),
    steps: texts(STEPS, config),
    http: texts(HTTP, config.http),
    errors: Object.fromEntries(ON_ERROR.map(([key, , standard]) => [key, config[key] ?? standard])),
  };
}

// The configuration of what was edited over the one that was there, and what is wrong, by key.
export function configOf(form, before) {
  const wrong = {};
  const take = (fields, texts, into) => fields.forEach(({ key, read }) => {
    delete into[key];
    if (texts[key].trim() === "") return;
    const { value, wrong: why } = read(texts[key]);
    if (why) wrong[key] = why;
    else into[key] = value;
  });
  const config = { ...before };
  take(STEPS, form.steps, config);
  Object.assign(config, form.errors);
  config.storage = false;
  if (form.stored) {
    config.storage = { ...(before.storage || {}) };
    take(STORAGE, form.storage, config.storage);
  }
  config.http = { ...before.http };
  take(HTTP, form.http, config.http);
  if (Object.keys(config.http).length === 0) delete config.http;
  const interval = whole(1, 3600)(form.interval);
  if (form.model !== "none" && !form.stored) wrong.fault_tolerance = "Fault tolerance needs storage: switch it on, or choose “None”.";
  if (form.model !== "none" && form.timed && interval.wrong) wrong.checkpoint_interval_secs = interval.wrong;
  config.fault_tolerance = form.model === "none" ? { model: "none" } : { model: form.model, checkpoint_interval_secs: form.timed ? interval.value : null };
  if (form.steps.rows_per_step.trim() && form.steps.min_batch_size_records.trim() > 0) {
    wrong.min_batch_size_records = "It does nothing beside exact rows in a step: leave one of them empty.";
  }
  return { config, wrong };
}
