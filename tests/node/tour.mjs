// The whole tour with the official `svix` client from npm, unmodified: only `serverUrl` is set. Run for both of its major
// versions (SVIX_PACKAGE=svix or svix-1); deliveries are verified with `standardwebhooks` and with svix's own Webhook.

import assert from "node:assert/strict";
import { createPublicKey, randomUUID, verify } from "node:crypto";
import { after, before, test } from "node:test";
import * as standardwebhooks from "standardwebhooks";
import { startReceiver, startServer, waitUntil } from "./harness.mjs";

const name = process.env.SVIX_PACKAGE ?? "svix";
const { Svix, Webhook, ApiException, ...models } = await import(name);
const StandardWebhook = standardwebhooks.Webhook ?? standardwebhooks.default.Webhook;
const { messageInRaw } = models;
const isFirst = name === "svix-1";
// The two generations name a few things differently.
const types = isFirst ? "filterTypes" : "eventTypes";
const put = (resource) => (isFirst ? resource.update : resource.upsert).bind(resource);
const setHeaders = (resource) => (resource.setHeaders ?? resource.updateHeaders).bind(resource);

let server, receiver, svix;
before(async () => {
  [server, receiver] = await Promise.all([startServer(), startReceiver()]);
  svix = new Svix(server.key, { serverUrl: server.url, retryScheduleInMs: [] });
});
after(async () => {
  receiver?.close();
  await server?.close();
});

const as = (token) => new Svix(token, { serverUrl: server.url, retryScheduleInMs: [] });
const status = (expected) => (error) => {
  assert.ok(error instanceof ApiException, `${error}`);
  assert.ok([expected].flat().includes(error.code), `${error.code} instead of ${expected}: ${JSON.stringify(error.body)}`);
  return true;
};
const makeApp = () => svix.application.create({ name: "Tour", uid: `tour-${randomUUID()}` });

async function setUp(endpointIn = {}) {
  const [app, hook] = [await makeApp(), receiver.hook()];
  const endpoint = await svix.endpoint.create(app.id, { url: hook.url, ...endpointIn });
  return { app, hook, endpoint };
}

function isSignedWith(secret, delivery) {
  const verdicts = [new StandardWebhook(secret), new Webhook(secret)].map((webhook) => {
    try {
      webhook.verify(delivery.body.toString(), delivery.headers);
      return true;
    } catch {
      return false;
    }
  });
  assert.equal(verdicts[0], verdicts[1], "standardwebhooks and svix disagree");
  return verdicts[0];
}

test("applications: created, found by uid, replaced, patched, listed in pages, deleted", async () => {
  const app = await makeApp();
  assert.match(app.id, /^app_[0-9A-Za-z]{27}$/);
  assert.ok(app.createdAt instanceof Date && Math.abs(app.createdAt - Date.now()) < 60_000);
  assert.equal((await svix.application.get(app.uid)).id, app.id);
  assert.equal((await svix.application.getOrCreate({ name: "Again", uid: app.uid })).id, app.id);
  await assert.rejects(svix.application.create({ name: "Again", uid: app.uid }), status(409));
  assert.equal((await put(svix.application)(app.id, { name: "Put", uid: app.uid })).name, "Put");
  const patched = await svix.application.patch(app.id, { uid: null });
  assert.equal(patched.name, "Put");
  assert.equal(patched.uid ?? null, null);
  const made = [];
  for (let n = 0; n < 3; n += 1) made.push((await makeApp()).id);
  const first = await svix.application.list({ limit: 2, order: "descending" });
  const second = await svix.application.list({ limit: 2, order: "descending", iterator: first.iterator });
  assert.deepEqual([...first.data, ...second.data].map((a) => a.id).slice(0, 3), made.reverse());
  const back = await svix.application.list({ limit: 2, order: "descending", iterator: second.prevIterator });
  assert.deepEqual(back.data, first.data);
  await svix.application.delete(app.id);
  await assert.rejects(svix.application.get(app.id), status(404));
});

test("event types: created with a schema, changed, archived, expunged", async () => {
  const eventType = `user.${randomUUID().replaceAll("-", "")}`;
  const schemas = { 1: { type: "object", examples: [{ id: 7 }] } };
  assert.deepEqual((await svix.eventType.create({ name: eventType, description: "one", schemas })).schemas, schemas);
  await assert.rejects(svix.eventType.create({ name: eventType, description: "two" }), status(409));
  assert.equal((await svix.eventType.patch(eventType, { description: "two" })).description, "two");
  assert.equal((await put(svix.eventType)(eventType, { description: "three" })).description, "three");
  assert.ok((await svix.eventType.list({ limit: 250 })).data.some((t) => t.name === eventType));
  await svix.eventType.delete(eventType);
  assert.equal((await svix.eventType.get(eventType)).archived, true);
  await svix.eventType.delete(eventType, { expunge: true });
  await assert.rejects(svix.eventType.get(eventType), status(404));
});

test("endpoints: every operation, null is not absent, sensitive headers stay hidden", async () => {
  const { app, hook, endpoint } = await setUp({ [types]: ["user.signup"], channels: ["blue"], metadata: { k: "v" } });
  assert.match(endpoint.id, /^ep_[0-9A-Za-z]{27}$/);
  assert.deepEqual([endpoint[types], endpoint.channels, endpoint.metadata], [["user.signup"], ["blue"], { k: "v" }]);
  const described = await svix.endpoint.patch(app.id, endpoint.id, { description: "patched" });
  assert.deepEqual([described.description, described[types]], ["patched", ["user.signup"]]);
  assert.equal((await svix.endpoint.patch(app.id, endpoint.id, { [types]: null }))[types] ?? null, null);
  const replaced = await put(svix.endpoint)(app.id, endpoint.id, { url: hook.url, description: "replaced" });
  assert.equal(replaced.channels ?? null, null);
  assert.deepEqual((await svix.endpoint.list(app.id)).data.map((e) => e.id), [endpoint.id]);
  await setHeaders(svix.endpoint)(app.id, endpoint.id, { headers: { "X-A": "1", Authorization: "Bearer canary" } });
  const shown = await svix.endpoint.getHeaders(app.id, endpoint.id);
  assert.ok(!JSON.stringify(shown.headers).includes("canary") && shown.sensitive.length === 1);
  await svix.endpoint.patchHeaders(app.id, endpoint.id, { headers: { "X-B": "2" }, deleteHeaders: ["X-A"] });
  const message = await svix.message.create(app.id, { eventType: "user.signup", payload: {} });
  const [{ headers }] = await hook.waitFor(message.id);
  assert.deepEqual([headers.authorization, headers["x-b"], headers["x-a"]], ["Bearer canary", "2", undefined]);
  await waitUntil(async () => (await svix.endpoint.getStats(app.id, endpoint.id)).success === 1, 5, "one success counted");
  await svix.endpoint.delete(app.id, endpoint.id);
  await assert.rejects(svix.endpoint.get(app.id, endpoint.id), status(404));
});

test("messages: byte-exact, idempotent, unique by eventId, listed by filters, content deleted", async () => {
  const { app, hook } = await setUp();
  const payload = { text: "ünïcode \u2028 😀", list: [1, 1.5, null], nested: { "": true } };
  const message = await svix.message.create(app.id, { eventType: "a.b", payload, channels: ["blue"], tags: ["t1"] });
  const [delivery] = await hook.waitFor(message.id);
  assert.equal(delivery.body.toString(), JSON.stringify(payload));
  const read = await svix.message.get(app.id, message.id, { withContent: true });
  assert.deepEqual([read.payload, read.channels, read.tags], [payload, ["blue"], ["t1"]]);
  const idempotencyKey = randomUUID();
  const many = await Promise.all(
    Array.from({ length: 100 }, () => svix.message.create(app.id, { eventType: "a.b", payload: {} }, { idempotencyKey })),
  );
  assert.equal(new Set(many.map((m) => m.id)).size, 1);
  await assert.rejects(
    svix.message.create(app.id, { eventType: "a.b", payload: { other: 1 } }, { idempotencyKey }),
    (error) => error instanceof ApiException && error.code >= 400 && error.code < 500,
  );
  const eventId = randomUUID();
  await svix.message.create(app.id, { eventType: "c.d", eventId, payload: {} });
  await assert.rejects(svix.message.create(app.id, { eventType: "c.d", eventId, payload: {} }), status(409));
  const listed = async (options) => (await svix.message.list(app.id, options)).data.map((m) => m.id);
  assert.equal((await listed({})).length, 3);
  assert.deepEqual(await listed({ channel: "blue", before: new Date(Date.now() + 60_000) }), [message.id]);
  assert.equal((await listed({ eventTypes: ["c.d"] })).length, 1);
  assert.deepEqual(await listed({ after: new Date(Date.now() + 60_000) }), []);
  await svix.message.expungeContent(app.id, message.id);
  const forgotten = await svix.message.get(app.id, message.id, { withContent: true });
  assert.ok(!JSON.stringify(forgotten.payload).includes("nested"));
  const raw = await svix.message.create(app.id, messageInRaw("raw.text", "plain\ttext", "text/plain"));
  const [rawDelivery] = await hook.waitFor(raw.id);
  assert.equal(rawDelivery.body.toString(), "plain\ttext");
  assert.equal(rawDelivery.headers["content-type"], "text/plain");
});

test("attempts: retried, listed by filters, looked up, resent, recovered", async () => {
  const { app, hook, endpoint } = await setUp();
  hook.script.push(500, 503);
  const message = await svix.message.create(app.id, { eventType: "a.b", payload: { n: 1 } });
  await hook.waitFor(message.id, 3);
  const byMessage = (options) => svix.messageAttempt.listByMsg(app.id, message.id, options).then((page) => page.data);
  const attempts = await waitUntil(async () => ((a) => a.length === 3 && a)(await byMessage()), 5, "three attempts");
  assert.deepEqual(attempts.map((a) => a.responseStatusCode), [204, 503, 500]);
  assert.equal((await byMessage({ status: 0 })).length, 1);
  assert.equal((await byMessage({ statusCodeClass: 500, endpointId: endpoint.id, eventTypes: ["a.b"] })).length, 2);
  const byEndpoint = (await svix.messageAttempt.listByEndpoint(app.id, endpoint.id, { withMsg: true, limit: 1 })).data;
  assert.equal(byEndpoint[0].msg.id, message.id);
  assert.equal((await svix.messageAttempt.get(app.id, message.id, attempts[0].id)).status, 0);
  assert.equal((await svix.messageAttempt.listAttemptedMessages(app.id, endpoint.id)).data[0].id, message.id);
  assert.equal((await svix.messageAttempt.listAttemptedDestinations(app.id, message.id)).data[0].id, endpoint.id);
  await svix.messageAttempt.expungeContent(app.id, message.id, attempts[1].id);
  await svix.messageAttempt.resend(app.id, message.id, endpoint.id);
  const tries = await hook.waitFor(message.id, 4);
  assert.ok(tries.every((t) => t.body.equals(tries[0].body)));
  hook.always = 500;
  const lost = await svix.message.create(app.id, { eventType: "a.b", payload: { n: 2 } });
  await hook.waitFor(lost.id, 3);
  await waitUntil(async () => (await svix.endpoint.getStats(app.id, endpoint.id)).fail === 1, 5, "one exhausted delivery");
  hook.always = 204;
  const task = await svix.endpoint.recover(app.id, endpoint.id, { since: new Date(Date.now() - 60_000) });
  await hook.waitFor(lost.id, 4);
  await waitUntil(async () => (await svix.backgroundTask.get(task.id)).status === "finished", 5, "the task finished");
});

test("signatures: verified with standardwebhooks and svix, with old and new secret during rotation", async () => {
  const { app, hook, endpoint } = await setUp();
  const old = (await svix.endpoint.getSecret(app.id, endpoint.id)).key;
  const send = async () => {
    const message = await svix.message.create(app.id, { eventType: "a.b", payload: { text: "ünï" } });
    return (await hook.waitFor(message.id))[0];
  };
  assert.ok(isSignedWith(old, await send()));
  await svix.endpoint.rotateSecret(app.id, endpoint.id, {});
  const rotated = (await svix.endpoint.getSecret(app.id, endpoint.id)).key;
  const delivery = await send();
  assert.notEqual(rotated, old);
  assert.ok(isSignedWith(old, delivery) && isSignedWith(rotated, delivery));
  assert.ok(!isSignedWith(rotated, { ...delivery, body: Buffer.concat([delivery.body, Buffer.from(" ")]) }));
  await svix.endpoint.rotateSecret(app.id, endpoint.id, { gracePeriodSeconds: 0 });
  const last = await send();
  assert.ok(isSignedWith((await svix.endpoint.getSecret(app.id, endpoint.id)).key, last) && !isSignedWith(rotated, last));
});

test("Ed25519 signatures verify with node:crypto alone", async () => {
  const other = await startServer({ BELLWIRE_SIGNING__DEFAULT: "ed25519" });
  try {
    const client = new Svix(other.key, { serverUrl: other.url, retryScheduleInMs: [] });
    const [app, hook] = [await client.application.create({ name: "Ed25519" }), receiver.hook()];
    const endpoint = await client.endpoint.create(app.id, { url: hook.url });
    const [prefix, text] = (await client.endpoint.getSecret(app.id, endpoint.id)).key.split("_");
    const raw = Buffer.from(text, "base64");
    const message = await client.message.create(app.id, { eventType: "a.b", payload: { text: "ünï" } });
    const [{ headers, body }] = await hook.waitFor(message.id);
    // A private key (`whsk_`) is the seed and then the public half.
    const x = (prefix === "whsk" ? raw.subarray(32) : raw).toString("base64url");
    const key = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
    const signed = Buffer.concat([Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.`), body]);
    const signatures = headers["webhook-signature"].split(" ").map((s) => s.split(","));
    assert.ok(signatures.some(([version, s]) => version === "v1a" && verify(null, signed, key, Buffer.from(s, "base64"))));
  } finally {
    await other.close();
  }
});

test("portal access: a link and a token that reach one application", async () => {
  const { app, endpoint } = await setUp();
  const access = await svix.authentication.appPortalAccess(app.id, {});
  assert.ok(access.url.includes(access.token));
  const portal = as(access.token);
  assert.deepEqual((await portal.endpoint.list(app.id)).data.map((e) => e.id), [endpoint.id]);
  await assert.rejects(portal.endpoint.list((await makeApp()).id), status([403, 404]));
  await assert.rejects(portal.application.list(), status([403, 404]));
  await portal.authentication.logout();
  await assert.rejects(portal.endpoint.list(app.id), status(401));
});

test("errors: a status, a code and a detail; validation errors say where", async () => {
  const { app } = await setUp();
  await assert.rejects(svix.application.get("no-such-application"), (error) => status(404)(error) && error.body.code === "not_found");
  await assert.rejects(as("bw_wrong").application.list(), status(401));
  await assert.rejects(svix.endpoint.create(app.id, { url: "nonsense" }), (error) => {
    status(422)(error);
    const [first] = error.body.detail;
    return first.loc.at(-1) === "url" && Boolean(first.msg) && Boolean(first.type);
  });
});
