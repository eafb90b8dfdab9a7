// Drives a Nosana with the provider's own client (npm @nosana/api), as a user of theirs would: one line of JSON at the end.
// node drive.mjs <folder with node_modules> <base URL> <API key>
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const [folder, backend_url, key] = process.argv.slice(2);
const path = join(folder, 'node_modules', '@nosana', 'api', 'dist', 'index.js');
const { createNosanaApi } = await import(pathToFileURL(path));
const api = createNosanaApi('mainnet', key, { backend_url });
const post = (what, body) =>
  fetch(`${backend_url}/_world/${what}`, { method: 'POST', body: JSON.stringify(body) });
const words = async (promise) => promise.then(() => null, (error) => error.message);

const seen = {};
const markets = await api.markets.list();
seen.markets = markets.map((market) => market.slug);
seen.market = (await api.markets.get(markets[0].address)).slug;
seen.balance = await api.credits.balance();

const operation = { type: 'container/run', id: 'main', args: { image: 'nginx', expose: [{ port: 80 }] } };
const job_definition = { version: '0.1', type: 'container', ops: [operation] };
const body = { name: 'theirs', market: markets[0].address, replicas: 1, timeout: 60, strategy: 'SIMPLE-EXTEND', job_definition };
const deployment = await api.deployments.create(body);
seen.created = deployment.status;
seen.endpoints = deployment.endpoints.length;
seen.archiveOfDraft = await words(deployment.archive());
await deployment.updateTimeout(7200);
await deployment.start();
seen.started = deployment.status;
await post('advance', { seconds: 2 });
const running = await api.deployments.get(deployment.id);
seen.running = [running.status, running.active_jobs, running.timeout];
const { jobs, total_items } = await running.getJobs({ limit: 10 });
seen.jobs = [jobs.length, total_items, jobs[0].state];
const job = await running.getJob(jobs[0].job);
seen.job = [job.state, job.jobResult, job.jobDefinition.ops[0].args.image];
seen.header = (await running.generateAuthHeader()).split(':')[0];
seen.tasks = (await running.getTasks()).tasks.map((task) => task.task);
seen.revisions = (await running.getRevisions()).total_items;
seen.events = (await running.getEvents()).events.map((event) => event.type).sort();
await post('job', { name: 'theirs', do: 'end', exit_code: 3 });
const ended = await running.getJob(jobs[0].job);
seen.ended = [ended.state, ended.jobResult.status, ended.jobResult.opStates[0].exitCode];
const stopped = await api.deployments.get(deployment.id);
seen.stopped = stopped.status;
seen.stopOfStopped = await words((await api.deployments.get(deployment.id)).stop());
await stopped.archive();
seen.archived = stopped.status;

for (let number = 0; number < 12; number++) await api.deployments.create({ ...body, name: `page-${number}` });
const first = await api.deployments.list({ limit: 10, search: 'page-' });
const second = await first.nextPage();
seen.pages = [first.deployments.length, second.deployments.length, second.nextPage, first.total_items];
seen.distinct = new Set([...first.deployments, ...second.deployments].map((item) => item.id)).size;

const stranger = createNosanaApi('mainnet', 'nos_wrong', { backend_url });
seen.stranger = await words(stranger.credits.balance());
seen.missing = await words(api.deployments.get('9'.repeat(44)));
console.log(JSON.stringify(seen));
