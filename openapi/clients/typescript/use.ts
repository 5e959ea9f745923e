// What somebody does first with a generated client: list, create, read, follow, and understand a refusal.
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

type Session = components["schemas"]["Session"];

const client = createClient<paths>({
  baseUrl: process.env["AMBIENT_URL"] ?? "",
  headers: { Authorization: `Bearer ${process.env["AMBIENT_TOKEN"] ?? ""}` },
});

function expect(holds: boolean, what: string): asserts holds {
  if (!holds) throw new Error(`not as expected: ${what}`);
}

const made = await client.POST("/api/ambient/v1/projects", { body: { name: "typescript" } });
const project = made.data;
expect(project?.status === "Active", "a new project is active");

const projects = await client.GET("/api/ambient/v1/projects", { params: { query: { size: 10 } } });
expect(projects.data?.kind === "ProjectList", "a list says what it is");
expect(projects.data.items.some((one) => one.id === project.id), "the project is in the list");

const created = await client.POST("/api/ambient/v1/sessions", {
  params: { header: { "Idempotency-Key": "typescript-1" } },
  body: { project_id: "typescript", interactive: false, prompt: "```sh\necho hello\n```", start: true },
});
expect(created.data !== undefined, "the session is made");
const path = { session_id: created.data.id };

const read = await client.GET("/api/ambient/v1/sessions/{session_id}", { params: { path } });
const session: Session | undefined = read.data;
expect(session?.id === created.data.id && session.phase != null, "the session is read, and was started");

const events = await client.GET("/api/ambient/v1/sessions/{session_id}/events/stream", {
  params: { path, query: { after_seq: 0 } },
  parseAs: "stream",
});
const reader = events.data?.pipeThrough(new TextDecoderStream()).getReader();
const first = await reader?.read();
expect(first?.value?.includes("data: ") === true, "the stream brings events");
await reader?.cancel();

const refused = await client.GET("/api/ambient/v1/sessions/{session_id}", {
  params: { path: { session_id: "2PzyKuGf4Pp1cYCmLvjkxyDiEBD" } },
});
expect(refused.response.status === 404 && refused.error?.code === "ambient-7", "what is not there is refused by number");
console.log("TypeScript: projects listed, a session created, read and followed");
