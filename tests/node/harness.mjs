// Starts the built server for a test, on loopback, in a temporary folder, on a free port; and a scripted receiver beside it.

import { spawn } from "node:child_process";
import { webcrypto } from "node:crypto";
import { once } from "node:events";
import fs from "node:fs";
import http from "node:http";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

// Node 18 has no global `crypto`, which the clients use.
globalThis.crypto ??= webcrypto;

const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const KEY_PATTERN = /\bbw_[0-9A-Za-z_.-]{16,}/;
const running = new Set();
process.on("exit", () => running.forEach((child) => child.kill("SIGKILL")));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(1));

/** Waits for `condition()` to be truthy and returns its value; throws with `what` at the deadline. */
export async function waitUntil(condition, seconds, what) {
  const deadline = Date.now() + seconds * 1_000;
  for (;;) {
    const value = await condition();
    if (value) return value;
    if (Date.now() > deadline) throw new Error(`not within ${seconds} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function freePort() {
  const probe = net.createServer().listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address();
  probe.close();
  await once(probe, "close");
  return port;
}

/** Starts `bellwire serve` and resolves once it answers: `{url, key, close}`. */
export async function startServer(environment = {}) {
  const binary = process.env.BELLWIRE_BIN ?? path.join(ROOT, "target/debug/bellwire");
  if (!fs.existsSync(binary)) throw new Error(`${binary} is missing: build it with \`cargo build -p bellwire\``);
  const port = await freePort();
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "bellwire-test-"));
  const logFolder = process.env.BELLWIRE_TEST_LOGS ?? os.tmpdir();
  fs.mkdirSync(logFolder, { recursive: true });
  const log = path.join(logFolder, `node-${port}.log`);
  const out = fs.openSync(log, "w");
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("BELLWIRE_"));
  const child = spawn(binary, ["serve"], {
    stdio: ["ignore", out, out],
    env: {
      ...Object.fromEntries(inherited),
      BELLWIRE_LISTEN: `127.0.0.1:${port}`,
      BELLWIRE_DATA_DIR: folder,
      BELLWIRE_EGRESS__ALLOW: "127.0.0.0/8,::1/128",
      BELLWIRE_DELIVERY__RETRY_SCHEDULE: "150ms,300ms",
      BELLWIRE_DELIVERY__REQUEST_TIMEOUT: "2s",
      NO_COLOR: "1",
      ...environment,
    },
  });
  running.add(child);
  const url = `http://127.0.0.1:${port}`;
  const text = () => fs.readFileSync(log, "utf8");
  await waitUntil(
    async () => {
      if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}\n${text()}`);
      return fetch(`${url}/readyz`).then((answer) => answer.ok, () => false);
    },
    20,
    `the server answers at ${url}, see ${log}`,
  );
  const key = await waitUntil(() => text().match(KEY_PATTERN)?.[0], 5, `an API key printed in ${log}`);
  const close = async () => {
    child.kill("SIGTERM");
    if (child.exitCode === null) await Promise.race([once(child, "exit"), new Promise((r) => setTimeout(r, 10_000).unref())]);
    child.kill("SIGKILL");
    running.delete(child);
    fs.closeSync(out);
    fs.rmSync(folder, { recursive: true, force: true });
  };
  return { url, key, close };
}

/** A receiver on loopback: `{url, hook(name), close}`. A hook keeps what arrived and answers from its script, then 204. */
export async function startReceiver() {
  const hooks = new Map();
  const server = http.createServer((request, response) => {
    const parts = [];
    request.on("data", (part) => parts.push(part));
    request.on("end", () => {
      const hook = hooks.get(request.url);
      const delivery = { body: Buffer.concat(parts), headers: request.headers };
      delivery.id = delivery.headers["webhook-id"] ?? delivery.headers["svix-id"];
      hook?.deliveries.push(delivery);
      const answer = hook ? (hook.script.shift() ?? hook.always) : 404;
      const { status, headers = {} } = typeof answer === "number" ? { status: answer } : answer;
      response.writeHead(status, headers).end();
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = `http://127.0.0.1:${server.address().port}`;
  const hook = (name = "hook") => {
    const made = { url: `${url}/${name}-${hooks.size}`, deliveries: [], script: [], always: 204 };
    hooks.set(new URL(made.url).pathname, made);
    /** The deliveries of one message, once there are `count`. */
    made.waitFor = (id, count = 1, seconds = 10) =>
      waitUntil(
        () => {
          const found = made.deliveries.filter((delivery) => delivery.id === id);
          return found.length >= count ? found : null;
        },
        seconds,
        `${count} deliveries of ${id} at ${made.url}`,
      );
    return made;
  };
  const close = () => {
    server.closeAllConnections?.();
    server.close();
  };
  return { url, hook, close };
}
