// Receiving from GitHub: every payload of `@octokit/webhooks-examples`, signed by `@octokit/webhooks` as GitHub signs, goes through a source to an endpoint.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { startReceiver, startServer, waitUntil } from "./harness.mjs";

const require = createRequire(import.meta.url);
const { Svix } = await import("svix");
const { Webhooks } = await import("@octokit/webhooks");
const SECRET = "a secret of the tests only";
const webhooks = new Webhooks({ secret: SECRET });

let server, receiver, svix;
before(async () => {
  [server, receiver] = await Promise.all([startServer(), startReceiver()]);
  svix = new Svix(server.key, { serverUrl: server.url });
});
after(async () => {
  receiver?.close();
  await server?.close();
});

async function createSource() {
  const answer = await fetch(`${server.url}/ingest/api/v1/source`, {
    method: "POST",
    headers: { authorization: `Bearer ${server.key}`, "content-type": "application/json" },
    body: JSON.stringify({ name: "GitHub", type: "github", config: { secret: SECRET } }),
  });
  assert.equal(answer.status, 201, await answer.clone().text());
  return answer.json();
}

function send(source, name, body, signature, delivery = randomUUID()) {
  const headers = { "content-type": "application/json", "x-github-event": name, "x-github-delivery": delivery, "x-hub-signature-256": signature };
  return fetch(source.ingestUrl, { method: "POST", headers, body });
}

test("every example of api.github.com, signed as GitHub signs, is verified, recognised and delivered byte for byte", async () => {
  const source = await createSource();
  const hook = receiver.hook("github");
  await svix.endpoint.create(source.appId, { url: hook.url });
  const examples = require("@octokit/webhooks-examples/api.github.com/index.json").flatMap(({ name, examples }) =>
    examples.map((payload) => ({ name, body: JSON.stringify(payload, null, 1) })),
  );
  assert.ok(examples.length > 40, `only ${examples.length} examples: is the package what it was?`);
  const queue = [...examples];
  const worker = async () => {
    for (let next = queue.shift(); next; next = queue.shift()) {
      const answer = await send(source, next.name, next.body, await webhooks.sign(next.body));
      assert.equal(answer.status, 200, next.name);
    }
  };
  await Promise.all(Array.from({ length: 8 }, worker));
  await waitUntil(() => hook.deliveries.length >= examples.length, 60, `${examples.length} deliveries`);
  const texts = (list) => list.map((item) => item.body.toString()).sort();
  assert.deepEqual(texts(hook.deliveries), texts(examples));
  const page = await svix.message.list(source.appId, { limit: 250 });
  const names = new Set(examples.map(({ name }) => name));
  assert.ok(page.data.every(({ eventType }) => names.has(eventType.split(".")[0])), "event types are GitHub's");
  console.log(`# ${examples.length} payloads`);
});

test("the same delivery, sent eight times at once, is one message", async () => {
  const source = await createSource();
  const body = JSON.stringify({ action: "opened" });
  const [signature, delivery] = [await webhooks.sign(body), randomUUID()];
  const answers = await Promise.all(Array.from({ length: 8 }, () => send(source, "issues", body, signature, delivery)));
  assert.deepEqual(answers.map(({ status }) => status), Array(8).fill(200));
  assert.equal((await svix.message.list(source.appId)).data.length, 1);
});

test("what another secret has signed is refused, and says nothing", async () => {
  const source = await createSource();
  const body = JSON.stringify({ action: "opened" });
  const answer = await send(source, "issues", body, await new Webhooks({ secret: "another" }).sign(body));
  assert.deepEqual([answer.status, await answer.text()], [401, ""]);
  assert.equal((await svix.message.list(source.appId)).data.length, 0);
});
