// What the pages need beside htmx: streams that sleep while nobody looks, and a word on whether the page is live.
"use strict";

(() => {
  const MAX_WAIT_MS = 30000;
  const say = (text) => {
    const place = document.getElementById("connection");
    if (place && place.textContent !== text) place.textContent = text;
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
      for (const [name, listener] of this.heard) source.addEventListener(name, listener);
      source.onopen = (event) => {
        this.waitMs = 500;
        say("live");
        if (this.onopen) this.onopen(event);
      };
      source.onerror = () => {
        say("reconnecting");
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

  // An act that was done closes its form; the form's next sending is another act.
  document.addEventListener("htmx:afterRequest", (event) => {
    const act = event.target.closest && event.target.closest("details.act");
    if (!act || event.detail.requestConfig.verb !== "post" || event.detail.xhr.status >= 400) return;
    act.open = false;
    const fresh = crypto.getRandomValues(new Uint8Array(16));
    act.querySelector("[name=key]").value = Array.from(fresh, (byte) => byte.toString(16).padStart(2, "0")).join("");
  });

  // What the API refuses is shown where its effect would be.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const answer = event.detail.xhr;
    if (answer.status < 400 || !document.getElementById("effect")) return;
    if (event.detail.requestConfig.verb === "get") return;
    event.detail.shouldSwap = true;
    event.detail.isError = false;
  });

  // News do not take away a form that somebody fills in, nor what somebody has opened to read.
  document.addEventListener("htmx:beforeRequest", (event) => {
    const { requestConfig, target } = event.detail;
    if (document.hidden) event.preventDefault(); // Nobody looks: a page that is seen again hears that it is to read anew.
    if (requestConfig.triggeringEvent?.type.startsWith("sse:") && target.querySelector("details[open]")) event.preventDefault();
  });
})();
