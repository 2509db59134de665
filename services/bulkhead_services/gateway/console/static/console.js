// Streams that sleep while nobody looks, and live regions that lose no news; the rest is htmx.
//
// A live region is an element with `hx-get` and `hx-trigger="sse:NAME"`. It stays in the page: its answer replaces what it
// holds (`hx-select="#id > *" hx-swap="innerHTML"`), so that htmx can queue news that come during a request. `data-here`:
// it shows the page's own address, which its filter changes.
"use strict";

(() => {
  const MAX_WAIT_MS = 30000;
  const FIRST_RETRY_MS = 1000;
  const say = (text) => {
    const place = document.getElementById("connection");
    if (place && place.textContent !== text) place.textContent = place.dataset.state = text;
  };

  // What is not as it should be, by its cause: shown in one place, said once by a screen reader.
  const notices = new Map();
  const notice = (cause, text) => {
    if (text) notices.set(cause, text);
    else notices.delete(cause);
    const place = document.getElementById("notice");
    const said = [...new Set(notices.values())].join(" ");
    if (place && place.textContent !== said) place.textContent = said;
  };
  // A form that leaves the page names the next page. Answers to the old page (of a session that "Sign out" ends) do not.
  let isLeaving = false;
  addEventListener("submit", (event) => {
    isLeaving = !event.defaultPrevented;
    setTimeout(() => (isLeaving = false), 5000); // Its person may have stopped it.
  });
  document.addEventListener("htmx:beforeOnLoad", (event) => isLeaving && event.preventDefault());
  const toLogin = () => {
    if (!isLeaving) location.assign("/login?next=" + encodeURIComponent(location.pathname + location.search));
  };
  const problemOf = (html) => {
    const told = new DOMParser().parseFromString(html, "text/html").querySelector(".problem");
    return told ? told.textContent.replace(/\s+/g, " ").trim() : "";
  };

  // An EventSource as the htmx extension uses it. It closes while its page is hidden, opens again when it is seen, and
  // comes again after an answer that would end a plain one (a gateway that starts, or closes).
  class Stream {
    constructor(url) {
      this.url = url;
      this.heard = [];
      this.waitMs = 500;
      this.ended = false;
      this.onopen = this.onerror = null;
      this.seen = () => (document.hidden ? this.shut() : this.open());
      document.addEventListener("visibilitychange", this.seen);
      this.open();
    }
    get readyState() {
      return this.ended ? EventSource.CLOSED : this.source ? this.source.readyState : EventSource.CONNECTING;
    }
    open() {
      if (this.ended || this.source || document.hidden) return;
      clearTimeout(this.timer);
      const source = (this.source = new EventSource(this.url));
      source.addEventListener("live", () => {
        this.waitMs = 500;
        say("live");
        notice(this, "");
      });
      source.addEventListener("refused", (event) => {
        say("not live");
        notice(this, `This page is not live. ${problemOf(event.data)}`);
      });
      source.addEventListener("login", toLogin);
      for (const [name, listener] of this.heard) source.addEventListener(name, listener);
      source.onopen = (event) => this.onopen && this.onopen(event);
      source.onerror = () => {
        if (!notices.has(this)) say("reconnecting");
        if (source.readyState !== EventSource.CLOSED || this.source !== source) return;
        this.source = null;
        this.timer = setTimeout(() => this.open(), this.waitMs);
        this.waitMs = Math.min(2 * this.waitMs, MAX_WAIT_MS);
      };
    }
    shut() {
      clearTimeout(this.timer);
      if (this.source) this.source.close();
      this.source = null;
    }
    close() {
      this.ended = true;
      this.shut();
      say("");
      notice(this, "");
      document.removeEventListener("visibilitychange", this.seen);
    }
    addEventListener(name, listener) {
      this.heard.push([name, listener]);
      if (this.source) this.source.addEventListener(name, listener);
    }
    removeEventListener(name, listener) {
      this.heard = this.heard.filter((pair) => pair[1] !== listener);
      if (this.source) this.source.removeEventListener(name, listener);
    }
  }

  htmx.createEventSource = (url) => new Stream(url);

  // After an act its page is loaded anew: it is shown where it was, and says what was done to who cannot see it.
  const PLACE = "bulkhead.place";
  document.addEventListener("submit", () => {
    sessionStorage.setItem(PLACE, JSON.stringify([location.pathname, scrollY, Date.now()]));
  }, true);
  const flash = document.getElementById("flash");
  if (flash) {
    const [path, top, at] = JSON.parse(sessionStorage.getItem(PLACE) || "[]");
    if (path === location.pathname && Date.now() - at < 30000 && !location.hash) scrollTo(0, top);
    const text = flash.textContent;
    flash.textContent = ""; // A status is read out when it changes.
    setTimeout(() => (flash.textContent = text), 100);
  }
  sessionStorage.removeItem(PLACE);

  // An act that was done closes its form; the form's next sending is another act.
  document.addEventListener("htmx:afterRequest", (event) => {
    const act = event.target.closest && event.target.closest("details.act");
    if (!act || event.detail.requestConfig.verb !== "post" || event.detail.xhr.status >= 400) return;
    act.open = false;
    const fresh = crypto.getRandomValues(new Uint8Array(16));
    act.querySelector("[name=key]").value = Array.from(fresh, (byte) => byte.toString(16).padStart(2, "0")).join("");
  });

  // In a question Enter sends, and Shift+Enter begins a line; not while a word is being composed.
  document.addEventListener("keydown", (event) => {
    const form = event.target.closest?.("form.ask");
    if (!form || event.key !== "Enter" || event.shiftKey || event.isComposing || event.target.tagName !== "TEXTAREA") return;
    event.preventDefault();
    form.requestSubmit(form.querySelector("button"));
  });
  const newest = document.querySelector(".turns > .turn:last-child");
  if (newest && !document.getElementById("flash") && !location.search && !location.hash) newest.scrollIntoView({ block: "end" });

  // A refusal of the API is shown where the effect would be.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const answer = event.detail.xhr;
    if (answer.status < 400 || !document.getElementById("effect")) return;
    if (event.detail.requestConfig.verb === "get") return;
    event.detail.shouldSwap = true;
    event.detail.isError = false;
  });

  const isNews = (config) => Boolean(config.triggeringEvent?.type.startsWith("sse:"));
  const waiting = new Map(); // Live regions that owe a look, with the event that told them.
  const filtering = new Set(); // Regions whose filter has sent its request: the answer tells what they show.
  const loading = new Map(); // Regions that look, with the event that told them.
  const failures = new Map();

  const look = (region) => {
    const type = waiting.get(region);
    waiting.delete(region);
    if (type && document.contains(region)) htmx.trigger(region, type);
  };
  const lookAll = () => [...waiting.keys()].forEach(look);

  // News do not take away a form that somebody fills in, nor what somebody has opened to read: they wait until it is shut.
  const waits = (region, type) => {
    const open = region.querySelector("details[open]");
    notice(`news of ${region.id}`, open ? "There is news: it is shown when the open part is closed." : "");
    const found = Boolean(open) || document.hidden || filtering.has(region);
    if (found) waiting.set(region, type);
    return found;
  };
  document.addEventListener("htmx:beforeRequest", (event) => {
    const { elt, requestConfig, target } = event.detail;
    if (isNews(requestConfig)) {
      const type = requestConfig.triggeringEvent.type;
      if (waits(elt, type)) event.preventDefault();
      else loading.set(elt, type);
    } else if (document.hidden && elt.matches("[hx-trigger*=every]")) {
      event.preventDefault(); // A look by the clock.
    } else if (target.matches("[data-here]")) {
      filtering.add(target);
      // An answer to the old filter must not replace that to the new one.
      if (loading.has(target)) {
        waiting.set(target, loading.get(target));
        htmx.trigger(target, "htmx:abort");
      }
    }
  });
  // It may have been opened while the answer was on its way.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { requestConfig, shouldSwap } = event.detail;
    if (!shouldSwap || !isNews(requestConfig)) return;
    if (waits(requestConfig.elt, requestConfig.triggeringEvent.type)) event.detail.shouldSwap = false;
  });
  document.addEventListener("toggle", (event) => event.target.open || lookAll(), true);
  document.addEventListener("visibilitychange", () => document.hidden || lookAll());
  document.addEventListener("htmx:configRequest", (event) => {
    if (event.detail.elt.matches("[data-here]")) event.detail.path = location.pathname + location.search;
  });

  document.addEventListener("htmx:afterRequest", (event) => {
    const { elt, requestConfig, successful, target } = event.detail;
    if (isNews(requestConfig)) loading.delete(elt);
    else if (filtering.delete(target)) look(target);
    if (!successful || requestConfig.verb !== "get") return;
    elt.classList.remove("stale");
    failures.delete(elt);
    notice(isNews(requestConfig) ? elt : "", "");
  });

  // A look that failed is made again; until then the region says that it is old.
  const failed = (event) => {
    const { elt, requestConfig, xhr } = event.detail;
    if (requestConfig.verb !== "get") return;
    const why = (xhr.status && problemOf(xhr.responseText)) || "The mesh does not answer.";
    if (!isNews(requestConfig)) return notice("", why);
    elt.classList.add("stale");
    notice(elt, `A part of this page is old: ${why}`);
    if (xhr.status && xhr.status < 500 && xhr.status !== 429) return;
    const count = failures.get(elt) || 0;
    failures.set(elt, count + 1);
    waiting.set(elt, requestConfig.triggeringEvent.type);
    setTimeout(() => document.hidden || look(elt), Math.min(FIRST_RETRY_MS * 2 ** count, MAX_WAIT_MS));
  };
  for (const name of ["htmx:responseError", "htmx:sendError", "htmx:timeout"]) document.addEventListener(name, failed);

  // Times that a page tells as a distance grow while it is open.
  const UNITS = [["s", 1, 60], ["min", 60, 3600], ["h", 3600, 86400], ["d", 86400, 604800]];
  setInterval(() => {
    if (document.hidden) return;
    for (const place of document.querySelectorAll("time[title]")) {
      const seconds = (Date.now() - Date.parse(place.dateTime)) / 1000;
      const unit = UNITS.find(([, , below]) => Math.abs(seconds) < below);
      if (!unit) continue;
      const amount = `${Math.floor(Math.abs(seconds) / unit[1])} ${unit[0]}`;
      place.textContent = seconds >= 0 ? `${amount} ago` : `in ${amount}`;
    }
  }, 10000);

  // Moments to come are told in the zone of who looks, and a zone that is asked for is that.
  const MOMENT = { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", timeZoneName: "short" };
  for (const place of document.querySelectorAll("time.local")) {
    place.textContent = new Date(place.dateTime).toLocaleString(undefined, MOMENT);
  }
  for (const field of document.querySelectorAll("[data-own-zone]")) {
    field.value = Intl.DateTimeFormat().resolvedOptions().timeZone || field.value;
  }

  // `#act-NAME` in the address opens the form of that act.
  const openAct = () => {
    const name = location.hash.match(/^#act-([a-z-]+)$/)?.[1];
    const summaries = name ? [...document.querySelectorAll("details.act > summary")] : [];
    const summary = summaries.find((one) => one.textContent.trim().toLowerCase().replace(/ /g, "-") === name);
    if (!summary) return;
    summary.parentElement.open = true;
    summary.parentElement.querySelector("input:not([type=hidden]), select")?.focus();
  };
  openAct();
  addEventListener("hashchange", openAct);

  // A text in a frame, or a name, has a button that copies it; a long answer shows its beginning.
  const COPY = '<svg class="icon" aria-hidden="true"><use href="ICONS#copy"/></svg>'.replace(
    "ICONS",
    document.currentScript ? new URL("icons.svg", document.currentScript.src).pathname : "",
  );
  const copyButton = (source, inline) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = inline ? "copy inline" : "copy";
    button.title = "Copy";
    button.setAttribute("aria-label", "Copy");
    button.innerHTML = COPY;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(source.textContent);
      button.title = "Copied";
      button.setAttribute("aria-label", "Copied");
      button.classList.add("copied");
    });
    return button;
  };
  let readsAll = false;
  const clamp = (answer) => {
    if (readsAll || answer.closest(".turns > .turn:last-child") || answer.nextElementSibling?.matches(".all") || answer.scrollHeight < 9 * parseFloat(getComputedStyle(answer).fontSize)) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "plain all";
    button.textContent = "Show all";
    const show = () => {
      readsAll = true;
      answer.classList.remove("clamped");
      button.remove();
    };
    button.addEventListener("click", show);
    answer.addEventListener("focusin", show);
    answer.classList.add("clamped");
    answer.after(button);
  };
  const furnish = (place) => {
    if (navigator.clipboard) {
      for (const pre of place.querySelectorAll("pre:not(.framed > *)")) {
        const frame = document.createElement("div");
        frame.className = "framed";
        pre.replaceWith(frame);
        frame.append(pre, copyButton(pre, false));
      }
      for (const name of place.querySelectorAll("[data-copy]:not(:has(+ .copy))")) name.after(copyButton(name, true));
    }
    for (const answer of place.querySelectorAll(".answer:not(.clamped)")) clamp(answer);
  };
  furnish(document);
  for (const place of document.querySelectorAll(".unscripted")) place.hidden = true;
  document.addEventListener("htmx:afterSwap", (event) => furnish(event.detail.target || event.target));

  // The keyboard's focus stays on the link or button that was replaced by its like.
  const FOCUSABLE = "a, button, input, select, summary, textarea, [tabindex]";
  const markOf = (one) => {
    const own = one.id || one.getAttribute("href") || one.getAttribute("name") || one.textContent.replace(/\d+/g, "").trim();
    return [one.tagName, own, one.parentElement.closest("[aria-label]")?.getAttribute("aria-label")].join("\n");
  };
  const alike = (region, mark) => [...region.querySelectorAll(FOCUSABLE)].filter((one) => markOf(one) === mark);
  let focused = null;
  const keepFocus = (region) => {
    const one = document.activeElement;
    if (!one || one === region || !region.contains(one)) return;
    const mark = markOf(one);
    focused = { region, mark, one, place: alike(region, mark).indexOf(one) };
  };
  const giveFocus = (region) => {
    if (!focused || focused.region !== region) return;
    const { mark, one, place } = focused;
    focused = null;
    if (!document.contains(one)) alike(region, mark)[place]?.focus({ preventScroll: true });
  };
  document.addEventListener("htmx:beforeSwap", (event) => event.detail.shouldSwap && keepFocus(event.detail.target));
  document.addEventListener("htmx:afterSwap", (event) => giveFocus(event.detail.target));
  document.addEventListener("htmx:sseBeforeMessage", (event) => keepFocus(event.target));
  document.addEventListener("htmx:sseMessage", (event) => giveFocus(event.target));
})();
