// A page that shows the numbers of a room: index.html?url=ws://localhost:8080/ws&room=r1

import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { connect } from "@qi-realtime/ws-client";
import { useConnection, useRoom } from "./hooks.js";

interface API {
  requests: { publish: { req: { room: string; n: number }; resp: { epoch: string; offset: number } } };
  events: { number: number };
}

const query = new URLSearchParams(location.search);
const client = connect<API>(query.get("url") ?? "/ws");

function Numbers({ room }: { room: string }) {
  const lines = useRoom(client, room, "number", 20);
  return (
    <ol aria-label="Numbers" aria-live="polite">
      {lines.map((line) => "gap" in line
        ? <li key={line.key}>{line.gap.lost ?? "Some"} messages were missed</li>
        : <li key={line.key}>{line.message}</li>)}
    </ol>
  );
}

function App() {
  const state = useConnection(client);
  const room = query.get("room") ?? "r1";
  return (
    <main>
      <p role="status">{state.name === "waiting" ? "Connection lost" : state.name}</p>
      <button onClick={() => void client.request("publish", { room, n: 1 }, { idempotent: true })}>Publish</button>
      <Numbers room={room} />
    </main>
  );
}

createRoot(document.getElementById("app")!).render(<StrictMode><App /></StrictMode>);
