// The question for the key, where the service wants one.

import { html, useState } from "../html.js";
import { get, key } from "../api.js";
import { useTitle } from "../hooks.js";

export function KeyPage({ onOpen }) {
  useTitle("Key");
  const [wrong, setWrong] = useState(key.get() ? "The key that was kept is not accepted any more." : undefined);
  const [busy, setBusy] = useState(false);
  const open = async (event) => {
    event.preventDefault();
    const given = new FormData(event.target).get("key").trim();
    // A header can bear no other letters.
    if (!/^[\x21-\x7e]+$/.test(given)) {
      setWrong(given ? "A key has no spaces and no letters beyond ASCII." : "Enter the key.");
      return;
    }
    setBusy(true);
    key.set(given);
    try {
      await get("/v0/config");
      onOpen();
    } catch (error) {
      key.forget();
      setWrong(error.status === 401 ? "This is not the key." : error.message);
      setBusy(false);
    }
  };
  return html`<main class="gate">
    <form class="card padded stack" onSubmit=${open} noValidate>
      <div class="row"><img src="/console/icon.svg" alt="" width="28" height="28" /><h1>Backstay</h1></div>
      <p class="muted">This service wants an API key, one that <code>backstay api-key</code> made for it (<code>--api-key-file</code>). It is kept in this tab until it is closed.</p>
      <div class="field">
        <label for="key">API key</label>
        <input id="key" name="key" type="password" autocomplete="off" autofocus aria-invalid=${Boolean(wrong)} aria-describedby="key-wrong" />
        <span id="key-wrong" class="wrong" role="alert">${wrong}</span>
      </div>
      <button class="primary" disabled=${busy}>${busy ? "Asking …" : "Open"}</button>
    </form>
  </main>`;
}
