// Dialogs: the browser's own, which keeps the focus inside and ends with Escape.

import { html, render, useEffect, useId, useRef, useState } from "../html.js";
import { Banner, Icon } from "./parts.js";

// `onSubmit` may be async: while it runs the dialog waits, and what it throws is shown in it.
export function Dialog({ title, wide, onClose, onSubmit, actions, children }) {
  const dialog = useRef();
  const id = useId();
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState();
  useEffect(() => {
    const before = document.activeElement;
    dialog.current.showModal();
    dialog.current.querySelector("[autofocus]")?.focus();
    return () => before?.isConnected && before.focus();
  }, []);
  const submit = async (event) => {
    event.preventDefault();
    if (busy) return;
    setBusy(true);
    setError(undefined);
    try {
      await onSubmit();
    } catch (error) {
      setError(error);
      setBusy(false);
    }
  };
  return html`<dialog ref=${dialog} class=${wide ? "wide" : ""} aria-labelledby=${id} onClose=${onClose}>
    <form onSubmit=${submit} onInput=${() => error && setError(undefined)} noValidate>
      <header>
        <h2 id=${id}>${title}</h2>
        <button type="button" class="plain icon" aria-label="Close" onClick=${() => dialog.current.close()}><${Icon} name="close" /></button>
      </header>
      <div class="content">${children}</div>
      <footer>
        ${error && html`<${Banner}>${error.message}<//>`}
        <button type="button" onClick=${() => dialog.current.close()}>Cancel</button>
        ${actions(busy)}
      </footer>
    </form>
  </dialog>`;
}

// Asks whether something that cannot be undone is to be done. True: it was done.
export function confirm({ title, text, action, run }) {
  return new Promise((answer) => {
    const place = document.body.appendChild(document.createElement("div"));
    const close = (done) => {
      render(null, place);
      place.remove();
      answer(done);
    };
    const submit = async () => {
      await run();
      close(true);
    };
    render(
      html`<${Dialog} title=${title} onClose=${() => close(false)} onSubmit=${submit}
        actions=${(busy) => html`<button class="danger primary" disabled=${busy}>${busy ? "Working …" : action}</button>`}>
        <p>${text}</p>
      <//>`,
      place,
    );
  });
}
