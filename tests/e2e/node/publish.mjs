// Publish a task straight onto the bus, from the JSON Schemas and the subject grammar alone.
//
//   node publish.mjs --url nats://127.0.0.1:4222 --key identity/pub_demo.nkey --publisher demo --tenant demo \
//        --schemas ../../../contracts/schemas [--version 1|2] [--limit-usd 0.25] [--deadline 60] "objective"
//
// Out: one JSON line {task_id, subject, stream, sequence}. Exit codes: 0 stored, 2 wrong usage or a message that does
// not fit its schema, 3 no broker, 4 the broker refused or this identity has no such right.

import { readFileSync } from "node:fs";
import { createHash, createHmac, randomBytes } from "node:crypto";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { connect, headers, nkeyAuthenticator, nkeys } from "@nats-io/transport-node";
import { blake2b } from "@noble/hashes/blake2.js";
import Ajv from "ajv/dist/2020.js";

const PARTITIONS = 32n;
const TIMEOUT_MS = 5_000;

const USAGE = "usage: publish.mjs --url … --key … --schemas … \"objective\"";

const { values: options, positionals } = orFail(2, USAGE, () => parseArgs({
  allowPositionals: true,
  options: {
    url: { type: "string" }, key: { type: "string" }, schemas: { type: "string" },
    publisher: { type: "string", default: "demo" }, tenant: { type: "string", default: "demo" },
    version: { type: "string", default: "2" }, "limit-usd": { type: "string" }, deadline: { type: "string" },
  },
}));
const objective = positionals[0];
if (!objective || !options.url || !options.key || !options.schemas) fail(2, USAGE);
if (!["1", "2"].includes(options.version)) fail(2, "--version is 1 or 2");

function fail(code, message) {
  console.error(`error: ${message}`);
  process.exit(code);
}

/** What work() gives; when it throws, one line with what to do in place of a trace. */
function orFail(code, todo, work) {
  try {
    return work();
  } catch (error) {
    return fail(code, `${error.message}; ${todo}`);
  }
}

/** partition = blake2b-64(task) mod 32, big endian: the same in every language. */
function partitionOf(task) {
  const digest = blake2b(new TextEncoder().encode(task), { dkLen: 8 });
  return new DataView(digest.buffer, digest.byteOffset).getBigUint64(0) % PARTITIONS;
}

function numberOf(name) {
  if (options[name] === undefined) return undefined;
  const value = Number(options[name]);
  if (!Number.isFinite(value)) fail(2, `--${name} is not a number`);
  return value;
}

/** The body in the form of the wanted version; version 1 speaks dollars and seconds. */
function bodyOf(version) {
  const usd = numberOf("limit-usd");
  const seconds = numberOf("deadline");
  if (version === "1") return { objective, limit_usd: usd, deadline_s: seconds };
  const limits = {};
  if (usd !== undefined) limits.cost_usd_micros = Math.round(usd * 1_000_000);
  if (seconds !== undefined) limits.deadline_ms = Math.round(seconds * 1000);
  return { objective, limits };
}

/** Refuse to send what does not fit the committed schema. */
function check(name, value) {
  const schema = orFail(2, "--schemas is the folder contracts/schemas of the repository",
    () => JSON.parse(readFileSync(join(options.schemas, `${name}.json`), "utf8")));
  const validate = new Ajv({ strict: false, validateFormats: false }).compile(schema);
  if (!validate(value)) fail(2, `${name}: ${new Ajv().errorsText(validate.errors)}`);
}

const seed = orFail(2, "--key is the publisher's file in identity/ of the mesh's data directory",
  () => readFileSync(options.key, "utf8").trim());
const authenticator = orFail(2, "--key holds no nkey seed of a user (SU…)", () => {
  nkeys.fromSeed(new TextEncoder().encode(seed));
  return nkeyAuthenticator(new TextEncoder().encode(seed));
});
const sender = `pub_${options.publisher}`;
// Ids of tasks lie in a space of the publisher's own.
const task = `${sender}-${randomBytes(12).toString("hex")}`;
const type = `mesh.task.requested.v${options.version}`;
const subject = `mesh.${sender}.gateway.${partitionOf(task)}.${options.tenant}.${task}.-`;
const body = JSON.parse(JSON.stringify(bodyOf(options.version)));
const ceId = createHash("sha256").update(`${sender}//request/${task}`).digest("hex").slice(0, 32);
const envelope = {
  "ce-specversion": "1.0", "ce-id": ceId, "ce-type": type, "ce-source": sender,
  "ce-time": new Date().toISOString(), "content-type": "application/json",
  // Nobody without the seed can guess this id and occupy it.
  "Nats-Msg-Id": createHmac("sha256", seed).update(ceId).digest("hex").slice(0, 32),
};
check(type, body);
check("envelope", envelope);

let connection;
let denied = "";
try {
  connection = await connect({
    servers: options.url, authenticator,
    inboxPrefix: `_INBOX_${sender}`, timeout: TIMEOUT_MS, reconnect: false, name: sender,
  });
} catch (error) {
  fail(3, `no broker at ${options.url}, or it does not know this key: ${error.message}`);
}
(async () => {
  // A denied publish is answered on the connection, not on the request.
  for await (const status of connection.status()) if (status.error) denied = String(status.error.message ?? status.error);
})();

const head = headers();
for (const [name, value] of Object.entries(envelope)) head.set(name, value);
try {
  // A request on the subject of a stream is answered by its PubAck: the broker has stored the message.
  const answer = await connection.request(subject, JSON.stringify(body), { headers: head, timeout: TIMEOUT_MS });
  const ack = answer.json();
  if (ack.error) fail(4, `the broker refused ${subject}: ${ack.error.description}`);
  console.log(JSON.stringify({ task_id: task, subject, stream: ack.stream, sequence: ack.seq }));
} catch (error) {
  fail(4, `${subject} was not stored: ${denied || error.message}`);
} finally {
  await connection.close();
}
