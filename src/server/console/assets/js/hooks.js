// What pages share: data that are asked for again and again, the address, the theme.

import { useEffect, useMemo, useRef, useState } from "./html.js";

// Calls `load` every `ms`, not while the page is hidden; an error is told beside the data that were there before it.
export function usePoll(load, ms, deps) {
  const [state, setState] = useState({});
  const again = useRef(() => {});
  useEffect(() => {
    const ended = new AbortController();
    let timer;
    let busy = false;
    let asked = false;
    // One at a time; who asks meanwhile has another one after it.
    const turn = async () => {
      asked = busy;
      if (busy) return;
      busy = true;
      clearTimeout(timer);
      try {
        if (!document.hidden) {
          const data = await load(ended.signal);
          if (!ended.signal.aborted) setState({ data });
        }
      } catch (error) {
        if (!ended.signal.aborted) setState((before) => ({ ...before, error }));
      }
      busy = false;
      if (!ended.signal.aborted) timer = setTimeout(turn, asked ? 0 : ms);
    };
    setState({});
    turn();
    again.current = turn;
    document.addEventListener("visibilitychange", turn);
    return () => {
      ended.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", turn);
    };
  }, deps);
  return { ...state, reload: () => again.current() };
}

// The address behind the `#`, in its parts.
export function useRoute() {
  const read = () => location.hash.replace(/^#?\/?/, "").split("/").map((part) => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;
    }
  });
  const [route, setRoute] = useState(read);
  useEffect(() => {
    const changed = () => setRoute(read());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return route;
}

export const linkTo = (name, tab = "overview") => `#/pipelines/${encodeURIComponent(name)}/${tab}`;

const THEME = "backstay-theme";
export const THEMES = ["auto", "light", "dark"];

// The theme that was chosen here; `auto` is the system's.
export function useTheme() {
  const [theme, setTheme] = useState(() => localStorage.getItem(THEME) ?? "auto");
  useEffect(() => {
    localStorage.setItem(THEME, theme);
    document.documentElement.dataset.theme = theme;
    dispatchEvent(new Event("themechange"));
  }, [theme]);
  return [theme, setTheme];
}

// A number that changes when colours do, so that what paints with them paints again.
export function useColours() {
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    const system = matchMedia("(prefers-color-scheme: dark)");
    const changed = () => setTurn((turn) => turn + 1);
    addEventListener("themechange", changed);
    system.addEventListener("change", changed);
    return () => {
      removeEventListener("themechange", changed);
      system.removeEventListener("change", changed);
    };
  }, []);
  return turn;
}

// What the browser's tab says.
export function useTitle(title) {
  useEffect(() => {
    document.title = title ? `${title} · Backstay` : "Backstay";
  }, [title]);
}

// A pipeline's history, grown by what is new; `undefined` until it is known.
export function useHistory(load, name, ms = 1000) {
  const kept = useMemo(() => ({ samples: [], events: [], after: 0 }), [name]);
  return usePoll(
    async (signal) => {
      const { samples, events } = await load(kept.after, signal);
      kept.samples = kept.samples.concat(samples).slice(-900);
      kept.events = kept.events.concat(events).slice(-200);
      kept.after = Math.max(kept.after, samples.at(-1)?.at_msecs ?? 0, events.at(-1)?.at_msecs ?? 0);
      return { samples: kept.samples, events: kept.events };
    },
    ms,
    [name],
  );
}
