// An A2A client in JavaScript that knows the official SDK and nothing of us.
// Arguments: folder of npm, address, key, binding. Out: what it saw, as one JSON object.
const { createRequire } = require('node:module');
const [folder, url, key, binding] = process.argv.slice(2);
const sdk = createRequire(`${folder}/x.js`);
const a2a = sdk('@a2a-js/sdk');
const { ClientFactory, DefaultAgentCardResolver, JsonRpcTransportFactory, RestTransportFactory } = sdk('@a2a-js/sdk/client');

async function main() {
  const fetchImpl = (to, init = {}) => {
    const headers = new Headers(init.headers);
    headers.set('Authorization', `Bearer ${key}`);
    return fetch(to, { ...init, headers });
  };
  const verify = a2a.verifyAgentCardSignature(async (kid, jku) => {
    const { keys } = await (await fetch(jku)).json();
    return keys.find((one) => one.kid === kid);
  });
  const transport = binding === 'JSONRPC' ? JsonRpcTransportFactory : RestTransportFactory;
  const cardResolver = new DefaultAgentCardResolver({ fetchImpl });
  const factory = new ClientFactory({ transports: [new transport({ fetchImpl })], cardResolver });
  const card = await cardResolver.resolve(url);
  await verify(card);
  const client = await factory.createFromAgentCard(card);
  const ask = (text, messageId) => a2a.SendMessageRequest.fromJSON({ message: { messageId, role: 'ROLE_USER', parts: [{ text }] } });
  const seen = { events: [] };
  for await (const event of client.sendMessageStream(ask('What is 17 * 23?', 'm1'))) {
    seen.events.push(a2a.StreamResponse.toJSON(event));
  }
  const id = seen.events[0].task.id;
  seen.task = a2a.Task.toJSON(await client.getTask(a2a.GetTaskRequest.fromJSON({ id })));
  const sent = await client.sendMessage(ask('What is 17 * 23?', 'm1'));
  seen.again = sent.id ?? sent.payload?.value?.id ?? sent;
  seen.listed = a2a.ListTasksResponse.toJSON(await client.listTasks(a2a.ListTasksRequest.fromJSON({ pageSize: 5 })));
  const own = await client.getAgentCard();
  // The SDK (1.3.0) checks a parsed card without its security schemes: it is given the card as it came.
  await verify(a2a.AgentCard.toJSON(own));
  seen.skills = own.skills.map((skill) => skill.tags);
  const refused = await client.cancelTask(a2a.CancelTaskRequest.fromJSON({ id })).then(() => null, (error) => error);
  seen.refused = `${refused?.name}: ${refused?.message}`;
  process.stdout.write(`\n${JSON.stringify(seen)}`);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
