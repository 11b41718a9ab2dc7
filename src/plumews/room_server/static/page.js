// The page of the room server: one room, what is said in it, and how many are there.
//
// The password and the token live in `visit`, in memory, and leave it in the first message of a WebSocket only.
// What others say becomes text nodes, never markup. Nothing is lost in silence: what could not be sent stays in the
// input, and what was sent without coming back is marked. Where the server keeps a history, the page asks for what it
// missed, and shows what it has not shown yet.

"use strict";

(() => {
  const MOST_ENTRIES = 500;
  const LONGEST_NAME = 128; // bytes of UTF-8, the server's limit
  const LONGEST_WAIT = 30; // seconds between two attempts to connect
  const COUNT_AGAIN = 5; // seconds until the member count is asked for again

  const UNAUTHORIZED = 4401;
  const FORBIDDEN = 4403;
  const AUTH_TIMEOUT = 4408;
  const REFUSALS = [UNAUTHORIZED, FORBIDDEN, AUTH_TIMEOUT];

  const METHOD_NOT_ALLOWED = 405; // a server that would open a WebSocket if it were asked for one

  const FIELDS = ["room", "password", "token"];

  const RECOVERS = "recovery" in document.documentElement.dataset; // whether the server keeps a history

  const at = (id) => document.getElementById(id);
  const door = at("door");
  const inside = at("inside");
  const log = at("log");
  const input = at("text");

  let visit = null; // the room that we are in, or at whose door we stand
  let following = true; // whether the newest message is in view

  // --- the door ----------------------------------------------------------------------------------

  function roomOfAddress() {
    try {
      return decodeURIComponent(location.hash.slice(1));
    } catch {
      return ""; // not ours
    }
  }

  function nameFault(room) {
    if (!room) return "Give the name of a room, such as chat.";
    const size = new TextEncoder().encode(room).length;
    if (size > LONGEST_NAME) return `A room's name may have ${LONGEST_NAME} bytes; this one has ${size}.`;
    if (/\p{C}|(?! )\p{Z}/u.test(room)) return "A room's name must be printable text.";
    return "";
  }

  function join(event) {
    event.preventDefault();
    const room = at("room").value.trim();
    const fault = nameFault(room);
    if (fault) {
      refuse(fault, at("room"));
      return;
    }
    history.replaceState(null, "", `#${encodeURIComponent(room)}`);
    if (visit) drop();
    at("refusal").hidden = true;
    at("code").hidden = true;
    for (const id of FIELDS) at(id).removeAttribute("aria-invalid");
    at("enter").disabled = true;
    at("enter").textContent = "Entering…";
    visit = {
      room,
      password: at("password").value,
      token: at("token").value.trim(),
      socket: null, // the room's messages
      admitted: false, // whether they come now
      counter: null, // the room's member count
      attempts: 0, // to connect, since we were last admitted
      unconfirmed: [], // what we said and have not heard yet
      echoes: false, // whether we ever heard ourselves
      since: RECOVERS ? "start" : null, // our place in the history, as the server told it
      heard: [], // what we have heard since
      replay: null, // what comes from the history now
      doubtful: [], // what we said before the connection was lost, until it is known whether it arrived
      timers: { retry: 0, count: 0 },
      due: 0,
    };
    connect();
  }

  function tell(text, code = "") {
    at("refusal").textContent = text;
    at("refusal").hidden = false;
    at("code").textContent = code;
    at("code").hidden = !code;
    at("enter").disabled = false;
    at("enter").textContent = "Enter";
  }

  function refuse(text, field, code) {
    tell(text, code);
    for (const id of FIELDS) at(id).setAttribute("aria-invalid", at(id) === field);
    if (field === at("token")) at("more").open = true;
    field.focus();
  }

  function refused({ code, reason }, line = `${code} ${reason}`) {
    const about = /token/.test(reason) ? at("token") : /password/.test(reason) ? at("password") : at("room");
    leave();
    const plain = reason.replace(/^forbidden: |^websocket /, "") || `code ${code}`;
    refuse(`You were not let in: ${plain}.`, about, line);
  }

  function drop() {
    const left = visit;
    visit = null;
    for (const timer of Object.values(left.timers)) clearTimeout(timer);
    left.socket?.close(1000);
    left.counter?.close(1000);
  }

  // What stands in the input stays there: whoever is shown the door may come back with it.
  function leave() {
    drop();
    log.replaceChildren();
    at("password").value = "";
    at("unsent").hidden = true;
    at("newest").hidden = true;
    at("enter").disabled = false;
    at("enter").textContent = "Enter";
    inside.hidden = true;
    door.hidden = false;
    document.title = "plumews";
    at("room").focus();
  }

  function showInside() {
    if (!inside.hidden) return;
    door.hidden = true;
    inside.hidden = false;
    at("name").textContent = visit.room;
    at("name").title = visit.room; // the heading may be cut off
    at("members").textContent = "";
    document.title = `${visit.room} · plumews`;
    input.focus();
  }

  // --- the connection ----------------------------------------------------------------------------

  function address(path) {
    const url = new URL(path, location.href);
    url.hash = "";
    url.search = new URLSearchParams({ room: visit.room, auth: "message" });
    if (path === "ws" && visit.since !== null) url.searchParams.set("since", visit.since);
    return url;
  }

  function dial(path) {
    const { password, token } = visit;
    const url = address(path);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    socket.onopen = () =>
      socket.send(JSON.stringify({ type: "auth", password: password || null, token: token || null }));
    return socket;
  }

  function connect() {
    const mine = visit;
    clearTimeout(mine.timers.retry);
    show("connecting", mine.attempts ? "Connecting again…" : "Connecting…");
    let answered = false;
    const socket = dial("ws");
    mine.socket = socket;
    socket.addEventListener("open", () => {
      answered = true;
    });
    socket.onmessage = ({ data }) => {
      if (visit !== mine) return;
      if (!mine.admitted) admit(); // the first message says that we are in
      else if (mine.replay === "expected") recover(data); // and the second one what we missed
      else receive(data);
    };
    socket.onclose = (event) => {
      if (visit === mine && mine.socket === socket) lose(event, answered);
    };
  }

  function admit() {
    visit.admitted = true;
    visit.attempts = 0;
    visit.replay = visit.since === null ? null : "expected";
    showInside();
    show("connected", "Connected");
    at("unsent").hidden = true;
    count();
  }

  function lose(event, answered) {
    const mine = visit;
    mine.admitted = false;
    stopCounting();
    if (mine.replay?.left) mine.heard = [...mine.replay.known, ...mine.heard]; // the rest has yet to come
    mine.replay = null;
    if (mine.since === null) doubt(mine.unconfirmed.slice());
    else mine.doubtful = mine.unconfirmed.slice();
    if (REFUSALS.includes(event.code)) {
      refused(event);
      return;
    }
    wait(excuse(event), event.code === 1006 ? "" : `${event.code} ${event.reason}`);
    if (!answered && event.code === 1006) ask(mine);
  }

  // A page is not told why a WebSocket was turned down. The same address tells it to a plain request; a POST says of
  // which page it is, as the WebSocket did.
  async function ask(mine) {
    let answer, body;
    try {
      answer = await fetch(address("ws"), { method: "POST", cache: "no-store" });
      body = await answer.text();
    } catch {
      explain(mine, "the server cannot be reached");
      return;
    }
    if (visit !== mine || mine.admitted) return;
    const { status } = answer;
    const { code, message } = reading(answer, body);
    const line = `${status} ${code}`.trim();
    const text = code ? `${message} (${code})` : message;
    if (status === METHOD_NOT_ALLOWED) {
      explain(mine, "the server is there, but no WebSocket gets through; a proxy has to pass it on");
    } else if (status < 400 || status === 429 || status >= 500) {
      explain(mine, text, line);
    } else {
      refused({ code: line, reason: text }, line);
    }
  }

  // The server writes JSON; a hook of the application may write any text, and a proxy a page of its own.
  function reading(answer, body) {
    try {
      const { code, message } = JSON.parse(body).error;
      if (code && message) return { code, message };
    } catch {
      // something else
    }
    const plain = /^text\/plain\b/.test(answer.headers.get("Content-Type")) && body.trim();
    return { code: "", message: plain || answer.statusText || `status ${answer.status}` };
  }

  function excuse({ code, reason }) {
    if (code === 1013) return /capacity/.test(reason) ? "the room is full" : reason || "the server is busy";
    if (code === 1001) return "the server was stopped";
    if (code === 1012) return "the server is restarting";
    return reason || "the connection was lost";
  }

  function explain(mine, why, code) {
    if (visit === mine && isWaiting()) show("waiting", `Not connected: ${why}.`, code);
  }

  function wait(why, code) {
    const most = Math.min(LONGEST_WAIT, 2 ** visit.attempts);
    visit.attempts += 1;
    visit.due = Date.now() + most * (500 + 500 * Math.random()); // else everybody comes back at once
    show("waiting", `Not connected: ${why}.`, code);
    tick();
  }

  function tick() {
    const left = visit.due - Date.now();
    if (left <= 0) {
      connect();
      return;
    }
    at("countdown").textContent = `Reconnecting in ${Math.ceil(left / 1000)} s.`;
    visit.timers.retry = setTimeout(tick, left % 1000 || 1000);
  }

  function retry() {
    if (visit && isWaiting()) connect();
  }

  function isWaiting() {
    return at("connection").dataset.state === "waiting";
  }

  function show(state, text, code) {
    at("connection").dataset.state = state;
    at("state").textContent = text;
    if (inside.hidden && state === "waiting") tell(`${text} It is tried again.`, code); // until then we stay at the door
    at("retry").hidden = !isWaiting();
    if (!isWaiting()) at("countdown").textContent = "";
  }

  // --- how many are there ------------------------------------------------------------------------

  function count() {
    const mine = visit;
    const counter = dial("members");
    mine.counter = counter;
    counter.onmessage = ({ data }) => {
      if (visit !== mine || mine.counter !== counter) return;
      const { members } = JSON.parse(data);
      at("members").textContent = members === 1 ? "Only you are here" : `${members} members are here`;
    };
    counter.onclose = ({ code }) => {
      if (visit !== mine || mine.counter !== counter) return;
      at("members").textContent = "";
      if (!REFUSALS.includes(code)) mine.timers.count = setTimeout(count, COUNT_AGAIN * 1000);
    };
  }

  function stopCounting() {
    clearTimeout(visit.timers.count);
    const counter = visit.counter;
    visit.counter = null;
    counter?.close(1000);
    at("members").textContent = "";
  }

  // --- what is said ------------------------------------------------------------------------------

  function say(event) {
    event.preventDefault();
    const text = input.value;
    if (!text.trim()) return;
    if (!visit.admitted || visit.socket.readyState !== WebSocket.OPEN) {
      at("unsent").textContent = "Not sent, there is no connection. It stays here; send it again when there is one.";
      at("unsent").hidden = false;
      return;
    }
    visit.socket.send(text);
    visit.unconfirmed.push(add(text, "own", "sent"));
    input.value = "";
    showNewest();
  }

  // What came from the history before, and what is new behind it: we have shown some of it already.
  function recover(data) {
    let event = null;
    try {
      event = JSON.parse(data);
    } catch {
      // no event
    }
    visit.replay = null;
    if (event?.type !== "recovered") {
      receive(data); // the server keeps no history any more
      return;
    }
    const { position, missed, complete } = event;
    visit.replay = { left: missed, known: visit.heard, next: 0, complete, position };
    visit.heard = [];
    if (!missed) settle();
  }

  function receive(data) {
    const mark = typeof data === "string" ? `text ${data}` : `${data.byteLength} bytes`;
    const { replay, heard } = visit;
    if (!replay) {
      if (visit.since !== null) heard.push(mark);
      if (heard.length > MOST_ENTRIES) heard.shift();
      hear(data);
      return;
    }
    const index = replay.known.indexOf(mark, replay.next);
    if (index < 0) {
      heard.push(mark);
      hear(data);
    } else {
      replay.next = index + 1;
    }
    replay.left -= 1;
    if (!replay.left) settle();
  }

  function settle() {
    const { replay, doubtful } = visit;
    visit.replay = null;
    visit.since = replay.position ?? visit.since; // not before: what has not come is asked for again
    visit.heard = [];
    if (!replay.complete && !replay.next && replay.known.length) add("(some messages are missing here)", "bytes");
    doubt(doubtful.filter((entry) => visit.unconfirmed.includes(entry)));
    visit.doubtful = [];
  }

  function hear(data) {
    if (typeof data !== "string") {
      add(`(${data.byteLength} ${data.byteLength === 1 ? "byte" : "bytes"})`, "bytes");
      return;
    }
    // The server sends everybody everything, us too: what we just said is ours when it comes back.
    const index = visit.unconfirmed.findIndex((entry) => entry.firstChild.textContent === data);
    if (index < 0) {
      add(data);
      return;
    }
    const [entry] = visit.unconfirmed.splice(index, 1);
    visit.echoes ||= !visit.replay; // a history has what we said, too
    entry.classList.remove("sent");
    if (entry !== log.lastChild) follow(() => log.append(entry)); // the order is the room's, not ours
  }

  function add(text, ...classes) {
    const entry = document.createElement("div");
    entry.classList.add("entry", ...classes);
    const said = document.createElement("p");
    said.dir = "auto";
    said.textContent = text;
    const note = document.createElement("small");
    const time = document.createElement("time");
    const now = new Date();
    time.dateTime = now.toISOString();
    time.textContent = now.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    note.append(time);
    entry.append(said, note);
    follow(() => {
      log.append(entry);
      while (log.childElementCount > MOST_ENTRIES) log.firstChild.remove();
    });
    return entry;
  }

  function doubt(entries) {
    visit.unconfirmed = visit.unconfirmed.filter((entry) => !entries.includes(entry));
    if (!visit.echoes) return;
    for (const entry of entries) {
      entry.classList.replace("sent", "doubtful");
      entry.lastChild.append(" · may not have arrived");
    }
  }

  function follow(change) {
    const followed = following; // the change itself may scroll
    change();
    if (followed) showNewest();
    else at("newest").hidden = false;
  }

  function showNewest() {
    log.scrollTop = log.scrollHeight;
    following = true;
    at("newest").hidden = true;
  }

  // --- what the visitor does ---------------------------------------------------------------------

  at("join").addEventListener("submit", join);
  at("leave").addEventListener("click", leave);
  at("retry").addEventListener("click", retry);
  at("say").addEventListener("submit", say);
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    at("say").requestSubmit();
  });
  log.addEventListener("scroll", () => {
    following = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    if (following) at("newest").hidden = true;
  });
  at("newest").addEventListener("click", () => {
    showNewest();
    input.focus();
  });
  // A keyboard comes up, the input grows: what was in view stays in view.
  new ResizeObserver(() => {
    if (following) showNewest();
  }).observe(log);
  addEventListener("online", retry);
  addEventListener("hashchange", () => {
    if (!visit) at("room").value = roomOfAddress();
  });

  if (RECOVERS) at("empty").textContent = "Nothing has been said here lately.";
  at("room").value = roomOfAddress();
  at(at("room").value ? "password" : "room").focus();
})();
