// The client of Node's `ws`, led by a test: `node client.mjs URL [subprotocol ...]`.
//
// A command is one line of JSON on stdin, an event one line of JSON on stdout; payloads are base64 in `data`.
//   commands  send {data, binary, fin}   ping {data}   close {code, reason}
//   events    open {subprotocol}   message {data, binary}   pong {data}   error {message}   close {code, reason}
// The answers to the server's pings and close frames are those of `ws` itself. The end of stdin ends the process.

import { createInterface } from "node:readline";
import WebSocket from "ws";

const [url, ...subprotocols] = process.argv.slice(2);
const socket = new WebSocket(url, subprotocols);
const tell = (event, fields) => process.stdout.write(JSON.stringify({ event, ...fields }) + "\n");

socket.on("open", () => tell("open", { subprotocol: socket.protocol }));
socket.on("message", (data, binary) => tell("message", { data: data.toString("base64"), binary }));
socket.on("pong", (data) => tell("pong", { data: data.toString("base64") }));
socket.on("error", (error) => tell("error", { message: error.message }));
socket.on("close", (code, reason) => tell("close", { code, reason: reason.toString() }));

const commands = {
  send: ({ data, binary, fin }) => socket.send(Buffer.from(data, "base64"), { binary, fin }),
  ping: ({ data }) => socket.ping(Buffer.from(data, "base64")),
  close: ({ code, reason }) => socket.close(code, reason),
};

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const { command, ...fields } = JSON.parse(line);
    commands[command](fields);
  })
  .on("close", () => process.exit());
