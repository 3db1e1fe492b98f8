// The dialog behind the gear: a pipeline's runtime configuration, every key of it.

import { html, useState } from "../html.js";
import { of, post, until } from "../api.js";
import { Dialog } from "../ui/dialog.js";
import { Banner } from "../ui/parts.js";
import { tell } from "../ui/toasts.js";
import { HTTP, MODELS, ON_ERROR, STEPS, STORAGE, configOf, formOf } from "./fields.js";

function Text({ field: { key, label, help, standard }, value, wrong, onInput, disabled }) {
  const id = `set-${key}`;
  return html`<div class="field">
    <label for=${id}>${label}</label>
    <input id=${id} value=${value} placeholder=${standard} autocomplete="off" spellcheck=${false} disabled=${disabled}
      aria-invalid=${Boolean(wrong)} aria-describedby="${id}-help" onInput=${(event) => onInput(event.target.value)} />
    <span id="${id}-help"><span class=${wrong ? "wrong" : "help"}>${wrong ?? help}</span> <span class="key">${key}</span></span>
  </div>`;
}

// The fields of one part of the form.
function Fields({ fields, of, form, wrong, set }) {
  return html`<div class="pair">${fields.map((field) => html`<${Text} key=${field.key} field=${field} value=${form[of][field.key]} wrong=${wrong[field.key]}
    onInput=${(text) => set({ [of]: { ...form[of], [field.key]: text } })} />`)}</div>`;
}

function Storage({ form, wrong, set }) {
  return html`<fieldset>
    <legend>Storage <span class="key muted mono">storage</span></legend>
    <label class="choice">
      <input type="checkbox" id="set-storage" checked=${form.stored} onChange=${(event) => set({ stored: event.target.checked })} />
      <span><b>Keep state on disk</b><span class="help">Checkpoints, fault tolerance and queries need it, and state may then be larger than memory. Without it everything begins anew at each start.</span></span>
    </label>
    ${form.stored && html`<${Fields} fields=${STORAGE} of="storage" form=${form} wrong=${wrong} set=${set} />`}
  </fieldset>`;
}

function FaultTolerance({ form, wrong, set }) {
  const needs = (model) => model !== "none" && !form.stored;
  return html`<fieldset>
    <legend>Fault tolerance <span class="key muted mono">fault_tolerance</span></legend>
    <div class="stack-small">${MODELS.map(([model, label, help]) => html`<label class="choice" key=${model}>
      <input type="radio" name="model" value=${model} checked=${form.model === model} disabled=${needs(model) && form.model !== model} onChange=${() => set({ model })} />
      <span><b>${label}</b><span class="help">${help}</span></span>
    </label>`)}</div>
    ${!form.stored && html`<span class=${wrong.fault_tolerance ? "wrong bad" : "help muted small"} role="status">${wrong.fault_tolerance ?? "The others need storage."}</span>`}
    ${form.model !== "none" && html`<div class="pair">
      <label class="choice"><input type="checkbox" checked=${form.timed} onChange=${(event) => set({ timed: event.target.checked })} />
        <span><b>Checkpoints by time</b><span class="help">Otherwise only on request, at a graceful stop, and when the log is full.</span></span></label>
      ${form.timed && html`<${Text} field=${{ key: "checkpoint_interval_secs", label: "Every (seconds)", help: "1 to 3600. More often: shorter replays after a crash, more writing.", standard: "60" }}
        value=${form.interval} wrong=${wrong.checkpoint_interval_secs} onInput=${(interval) => set({ interval })} />`}
    </div>`}
  </fieldset>`;
}

function Errors({ form, set }) {
  return html`<fieldset><legend>Bad rows</legend><div class="pair">${ON_ERROR.map(([key, label]) => html`<div class="field" key=${key}>
    <label for="set-${key}">${label}</label>
    <select id="set-${key}" value=${form.errors[key]} onChange=${(event) => set({ errors: { ...form.errors, [key]: event.target.value } })}>
      <option value="skip">Leave the row out, count it and tell the first few</option>
      <option value="stop">Stop the pipeline, naming it</option>
    </select>
    <span class="key">${key}</span>
  </div>`)}</div></fieldset>`;
}

// `save` sends a configuration. A pipeline that runs is stopped for it behind a checkpoint, and started again as it was.
export function SettingsDialog({ pipeline, isStopped, save, onClose }) {
  const { name, runtime_config: before, deployment_desired_status: desired } = pipeline;
  const [opened] = useState({ before, isStopped, desired });
  const [form, setForm] = useState(() => formOf(before));
  const [doing, setDoing] = useState();
  const set = (change) => setForm((form) => ({ ...form, ...change }));
  const { config, wrong } = configOf(form, opened.before);
  const problems = Object.keys(wrong).length;
  const submit = async () => {
    if (problems) {
      document.querySelector("dialog [aria-invalid=true]")?.focus();
      throw new Error(Object.values(wrong)[0]);
    }
    if (!opened.isStopped) {
      setDoing("Stopping …");
      await post(of(name, "/stop?force=false"));
      await until(name, (p) => p.deployment_status === "Stopped");
    }
    setDoing("Saving …");
    try {
      await save(config);
    } finally {
      if (!opened.isStopped) {
        setDoing("Starting …");
        await post(of(name, `/start?initial=${opened.desired === "Paused" ? "paused" : "running"}`));
      }
      setDoing(undefined);
    }
    tell("Settings saved.");
    onClose();
  };
  return html`<${Dialog} wide title="Settings of ${name}" onClose=${onClose} onSubmit=${submit}
    actions=${(busy) => html`<button class="primary" disabled=${busy}>${busy ? doing ?? "Saving …" : opened.isStopped ? "Save" : "Stop, save and start again"}</button>`}>
    ${!opened.isStopped && html`<${Banner} kind="info">Settings take effect at a start. Saving stops the pipeline behind a checkpoint and starts it again; no row is lost or counted twice with fault tolerance.<//>`}
    <${Storage} form=${form} wrong=${wrong} set=${set} />
    <hr />
    <${FaultTolerance} form=${form} wrong=${wrong} set=${set} />
    <hr />
    <fieldset><legend>Steps</legend><${Fields} fields=${STEPS} of="steps" form=${form} wrong=${wrong} set=${set} /></fieldset>
    <hr />
    <fieldset><legend>Clients that push and listen <span class="key muted mono">http</span></legend><${Fields} fields=${HTTP} of="http" form=${form} wrong=${wrong} set=${set} /></fieldset>
    <hr />
    <${Errors} form=${form} set=${set} />
    <details><summary class="muted small">As JSON, for the REST API or a file</summary><pre class="scroll mono" tabindex="0">${JSON.stringify(config, null, 2)}</pre></details>
  <//>`;
}
