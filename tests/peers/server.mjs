// The server of Node's `ws`, as an echo server for a test: `node server.mjs`. It prints its port.
//
// A text that begins with "!" is a command, as `servers.py` lists them. The end of stdin ends the process.

import { WebSocketServer } from "ws";

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: 0,
  perMessageDeflate: { threshold: 0 },
  handleProtocols: (offered) => (offered.has("chat.v2") ? "chat.v2" : false),
});

const commands = {
  close: (socket, code, reason) => socket.close(Number(code), reason),
  ping: (socket) => {
    socket.once("pong", (data) => socket.send(`pong ${data}`));
    socket.ping("are you there?");
  },
  fragments: (socket) => {
    socket.send("abc ".repeat(1000), { fin: false });
    socket.send("", { fin: false });
    socket.send("\u20ac", { fin: true });
  },
};

server.on("connection", (socket) => {
  socket.on("message", (data, binary) => {
    const command = binary ? null : data.toString().match(/^!(\w+) ?(\d*) ?(.*)$/s);
    if (command) commands[command[1]](socket, command[2], command[3]);
    else socket.send(data, { binary });
  });
});
server.on("listening", () => process.stdout.write(`${server.address().port}\n`));
process.stdin.resume().on("end", () => process.exit());
