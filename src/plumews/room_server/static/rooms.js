// The table of rooms at the door: which there are, how many are in them, and how much is not sent to them yet.
//
// The server says who may see it; to others it answers 204, and nothing is shown. It is asked again while somebody can
// see the table, and no longer. Names become text nodes, never markup.

"use strict";

(() => {
  const EVERY = 2; // seconds between two questions

  const at = (id) => document.getElementById(id);

  function amount(bytes) {
    if (bytes < 1000) return `${bytes} bytes`;
    return bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
  }

  function many(count, noun) {
    return count === 1 ? `1 ${noun}` : `${count} ${noun}s`;
  }

  function waiting({ backlogged, queued_messages: messages, queued_bytes: bytes, oldest_queued_age: age }) {
    if (!messages) return "nothing";
    const queued = `${many(messages, "message")}, ${amount(bytes)}`;
    return backlogged ? `${queued}; ${backlogged} slow, ${Math.round(age)} s` : queued;
  }

  function row(room) {
    const choose = document.createElement("button");
    choose.type = "button";
    choose.textContent = room.name;
    choose.addEventListener("click", () => {
      at("room").value = room.name;
      at("password").focus();
    });
    const name = document.createElement("th");
    name.scope = "row";
    name.append(choose);
    const cells = [room.members, waiting(room)].map((text) => {
      const cell = document.createElement("td");
      cell.textContent = text;
      return cell;
    });
    const line = document.createElement("tr");
    line.append(name, ...cells);
    return line;
  }

  function show({ connections, rooms_total: total, rooms }) {
    const largest = rooms.length < total ? `, the largest ${rooms.length} of them here` : "";
    at("rooms-state").textContent = total
      ? `${many(connections, "member")} in ${many(total, "room")}${largest}`
      : "Nobody is in any room.";
    const focused = document.activeElement?.closest("#rooms-list") ? document.activeElement.textContent : null;
    at("rooms-list").replaceChildren(...rooms.map(row));
    at("rooms-table").hidden = !rooms.length;
    at("rooms").hidden = false;
    if (focused === null) return;
    for (const button of at("rooms-list").querySelectorAll("button")) {
      if (button.textContent === focused) button.focus({ preventScroll: true }); // the same room, in a new line
    }
  }

  async function ask() {
    if (!at("door").hidden && !document.hidden) {
      try {
        const answer = await fetch("rooms.json", { cache: "no-store" });
        if (answer.status === 204) {
          at("rooms").hidden = true;
          return; // not for us
        }
        if (!answer.ok) throw new Error(`status ${answer.status}`);
        show(await answer.json());
      } catch {
        at("rooms-state").textContent = "The server cannot be reached.";
        at("rooms-table").hidden = true;
      }
    }
    setTimeout(ask, EVERY * 1000);
  }

  ask();
})();
