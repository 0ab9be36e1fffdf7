// Acceptance 3: every payload of `@octokit/webhooks-examples` is published and arrives byte for byte.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { startReceiver, startServer, waitUntil } from "./harness.mjs";

const require = createRequire(import.meta.url);
const { Svix, Webhook } = await import("svix");
const editions = ["api.github.com", "ghes-31", "ghes-32", "ghes-33", "ghes-34", "ghes-35"];

let server, receiver, svix;
before(async () => {
  [server, receiver] = await Promise.all([startServer(), startReceiver()]);
  svix = new Svix(server.key, { serverUrl: server.url });
});
after(async () => {
  receiver?.close();
  await server?.close();
});

for (const edition of editions) {
  test(`the examples of ${edition} arrive byte for byte`, async () => {
    const app = await svix.application.create({ name: edition });
    const hook = receiver.hook(edition);
    const endpoint = await svix.endpoint.create(app.id, { url: hook.url });
    const examples = require(`@octokit/webhooks-examples/${edition}/index.json`).flatMap(({ name, examples }) =>
      examples.map((payload) => ({ eventType: name, payload })),
    );
    assert.ok(examples.length > 40, `only ${examples.length} examples: is the package what it was?`);
    const expected = new Map();
    const queue = [...examples];
    const publish = async () => {
      for (let next = queue.shift(); next; next = queue.shift()) {
        expected.set((await svix.message.create(app.id, next)).id, JSON.stringify(next.payload));
      }
    };
    await Promise.all(Array.from({ length: 8 }, publish));
    assert.equal(expected.size, examples.length);
    await waitUntil(() => hook.deliveries.length >= expected.size, 60, `${expected.size} deliveries of ${edition}`);
    const { key } = await svix.endpoint.getSecret(app.id, endpoint.id);
    for (const { id, body, headers } of hook.deliveries) {
      assert.ok(body.equals(Buffer.from(expected.get(id))), `${id} is not what was published`);
      new Webhook(key).verify(body.toString(), headers);
    }
    assert.equal(new Set(hook.deliveries.map((d) => d.id)).size, expected.size, "each exactly once");
    console.log(`# ${edition}: ${expected.size} payloads`);
  });
}
