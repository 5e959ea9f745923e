// What a user interface does with the stock AG-UI client, its verification on: talk to a session, over several runs, and come back to them.
import assert from "node:assert/strict";
import { HttpAgent, verifyEvents } from "@ag-ui/client";
import { from, lastValueFrom, toArray } from "rxjs";

const base = `${process.env.AMBIENT_URL}/api/ambient/v1`;
const headers = { Authorization: `Bearer ${process.env.AMBIENT_TOKEN}` };

async function call(method, path, body) {
  const json = body === undefined ? {} : { body: JSON.stringify(body), headers: { ...headers, "Content-Type": "application/json" } };
  const response = await fetch(base + path, { method, headers, ...json });
  const text = await response.text();
  assert.ok(response.ok, `${method} ${path}: ${response.status} ${text}`);
  return text === "" ? undefined : JSON.parse(text);
}

const script = (text) => `Do it.\n\n\`\`\`sh\n${text}\n\`\`\`\n`;

await call("POST", "/projects", { name: "agui" });
const session = await call("POST", "/sessions", { project_id: "agui", name: "chat" });
const path = `/sessions/${session.id}`;
const agent = new HttpAgent({ url: `${base}${path}/agui`, headers, threadId: "thread-1" });

// A run, with all of its events; what breaks the protocol's rules fails it.
async function run(runId, during = async () => {}) {
  const events = [];
  let failure;
  const subscriber = {
    onEvent: ({ event }) => {
      events.push(event);
      during(event);
    },
    onRunFailed: ({ error }) => {
      failure = error;
    },
  };
  await agent.runAgent({ runId }, subscriber).catch((error) => {
    failure ??= error;
  });
  return { events, failure, types: events.map((event) => event.type) };
}

// The session was never started: the first message does that.
agent.addMessage({ id: "m1", role: "user", content: script("echo hello from the tool") });
const first = await run("run-1");
assert.equal(first.failure, undefined);
assert.deepEqual([first.events[0].type, first.events[0].runId, first.events[0].threadId], ["RUN_STARTED", "run-1", "thread-1"]);
const end = first.events.at(-1);
assert.deepEqual([end.type, end.outcome.type, end.runId], ["RUN_FINISHED", "success", "run-1"]);
const [user, words, toolCall, result] = agent.messages;
assert.deepEqual([user.id, words.role, words.content.trim()], ["m1", "assistant", "Do it."]);
assert.equal(toolCall.toolCalls[0].function.name, "execute");
assert.equal(JSON.parse(toolCall.toolCalls[0].function.arguments).script.trim(), "echo hello from the tool");
assert.deepEqual([result.role, result.content], ["tool", "hello from the tool\n"]);
assert.ok(first.events.some((event) => event.name === "ambient.tool.output"), "output is told while it comes");

// A second run on the same thread, which fails; asking for it again sends nothing anew.
agent.addMessage({ id: "m2", role: "user", content: [{ type: "text", text: script("exit 3") }] });
const second = await run("run-2");
assert.equal(second.failure, undefined);
assert.deepEqual([second.types.at(-1), second.events.at(-1).code], ["RUN_ERROR", "ScriptFailed"]);
const again = await run("run-2b");
assert.deepEqual(again.types, second.types);
const said = await call("GET", `${path}/events?size=1000`);
assert.equal(said.items.filter((event) => event.type === "user.message").length, 2);

// A run that is interrupted.
agent.addMessage({ id: "m3", role: "user", content: script("echo begun; sleep 600") });
const third = await run("run-3", async (event) => {
  if (event.name === "ambient.tool.output") await call("POST", `${path}/agui/interrupt`);
});
assert.equal(third.failure, undefined);
assert.deepEqual(third.events.at(-1).outcome, { type: "cancelled" });

// Everything once more, as somebody sees it who only watches: from the start, and from every place on.
async function watch(after, runs) {
  const response = await fetch(`${base}${path}/agui/events`, { headers: { ...headers, "Last-Event-ID": after } });
  assert.equal(response.status, 200, `after ${after}`);
  const [events, reader, decoder] = [[], response.body.getReader(), new TextDecoder()];
  let text = "";
  while (events.filter(([, event]) => ["RUN_FINISHED", "RUN_ERROR"].includes(event.type)).length < runs) {
    text += decoder.decode((await reader.read()).value, { stream: true });
    const frames = text.split("\n\n");
    text = frames.pop();
    for (const frame of frames) {
      const field = (name) => frame.split("\n").find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
      if (field("data") !== undefined) events.push([field("id"), JSON.parse(field("data"))]);
    }
  }
  await reader.cancel();
  return events;
}
const all = await watch("0", 3);
const seen = all.map(([, event]) => event);
assert.equal((await lastValueFrom(from(seen).pipe(verifyEvents(), toArray()))).length, seen.length);
assert.equal(seen.filter((event) => event.role === "user").length, 3);
for (const [n, [id]] of all.entries()) {
  if (n === all.length - 1) break;
  const rest = all.slice(n + 1);
  const ends = rest.filter(([, event]) => ["RUN_FINISHED", "RUN_ERROR"].includes(event.type)).length;
  assert.deepEqual(await watch(id, ends), rest, `after ${id}`);
}

const runs = await call("GET", `${path}/agui/runs`);
assert.deepEqual(runs.items.map((one) => one.status), ["success", "error", "cancelled"]);
const page = await call("GET", `${path}/agui/runs?size=2`);
const next = await call("GET", `${path}/agui/runs?size=2&after_seq=${page.next}`);
assert.deepEqual([...page.items, ...next.items], runs.items);
const history = await call("GET", `${path}/agui/history`);
const spoken = history.messages.filter((message) => message.role === "user").map((message) => message.content);
assert.deepEqual(spoken, [script("echo hello from the tool"), script("exit 3"), script("echo begun; sleep 600")]);
const capabilities = await call("GET", `${path}/agui/capabilities`);
assert.deepEqual(capabilities.tools, { supported: true, clientProvided: false });

// What cannot be is refused before a stream begins.
const refused = await fetch(`${base}${path}/agui`, {
  method: "POST",
  headers: { ...headers, "Content-Type": "application/json" },
  body: JSON.stringify({ threadId: "t", runId: "r", messages: [], resume: [{ interruptId: "9-9-9", status: "cancelled" }] }),
});
assert.equal(refused.status, 400);
assert.match((await refused.json()).reason, /resume\[0\]\.interruptId/);
await call("POST", `${path}/stop`, {});
console.log(`AG-UI: three runs with the stock client, and ${all.length} places to come back to`);
process.exit(0);
