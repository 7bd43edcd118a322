// The socket: messages to the server as {do: ...}, events from it by type. It connects again when it is lost.

import { emit } from "./state.js";

let socket = null;
let delay = 500;

export function connect(onOpen) {
  const url = new URL("socket", document.baseURI);
  url.protocol = url.protocol.replace("http", "ws");
  socket = new WebSocket(url);
  socket.onopen = () => {
    delay = 500;
    emit("online", true);
    onOpen();
  };
  socket.onmessage = (event) => {
    const message = JSON.parse(event.data);
    emit(`got:${message.type}`, message);
  };
  socket.onclose = () => {
    emit("online", false);
    setTimeout(() => connect(onOpen), delay);
    delay = Math.min(5000, delay * 2);
  };
}

// What is asked for while there is no connection is not done later, when nobody expects it, but said to be undone.
export function send(message) {
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
  else if (message.do !== "look") emit("got:error", { text: "No connection to vidseg ui at the moment: this was not done. Try again." });
}

export function clipUrl(key, rest) {
  return new URL(`clips/${key.split("/").map(encodeURIComponent).join("/")}/${rest}`, document.baseURI).href;
}
