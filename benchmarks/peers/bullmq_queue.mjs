// BullMQ: one `add` per caller, 50 callers; a worker of concurrency 100 whose handler does nothing.
// Asked and answered by lines, as the peers in Python are.

import { randomBytes } from 'node:crypto';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const [url, modules] = process.argv.slice(2);
const { Queue, Worker } = createRequire(`${modules}/`)('bullmq');
const { hostname, port, pathname } = new URL(url);
const connection = { host: hostname, port: Number(port), db: Number(pathname.slice(1)), maxRetriesPerRequest: null };
const CALLERS = 50;
const CONCURRENCY = 100;
const BYTES = 1500;

const queue = new Queue('handle', { connection });
await queue.waitUntilReady();

async function add(jobs) {
  const bodies = Array.from({ length: jobs }, () => randomBytes(BYTES / 2).toString('hex'));
  const options = { removeOnComplete: true };
  const begun = performance.now();
  let next = 0;
  const caller = async () => {
    while (next < jobs) await queue.add('handle', { body: bodies[next++] }, options);
  };
  await Promise.all(Array.from({ length: CALLERS }, caller));
  return (performance.now() - begun) / 1000;
}

async function drain(jobs) {
  await add(jobs);
  let left = jobs;
  let over;
  const drained = new Promise((resolve) => (over = resolve));
  const begun = performance.now();
  const worker = new Worker('handle', async () => { if (--left === 0) over(); }, { connection, concurrency: CONCURRENCY });
  await drained;
  const seconds = (performance.now() - begun) / 1000;
  await worker.close();
  return seconds;
}

const verbs = { add, drain };
for await (const line of createInterface({ input: process.stdin })) {
  const [verb, jobs] = line.split(' ');
  console.log(await verbs[verb](Number(jobs)));
}
process.exit(0);
