import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { Problem } from './problem.js';
import { Resource } from './resource.js';

const seen: { method: string; url: string; headers: IncomingMessage['headers']; body: string }[] = [];
let server: Server;
let base = '';

before(async () => {
  server = createServer((req, res) => {
    let body = '';
    req.on('data', (d: Buffer) => (body += d.toString()));
    req.on('end', () => {
      const { method = '', url = '', headers } = req;
      seen.push({ method, url, headers, body });
      if (method === 'POST' && url === '/live/whip/ok') {
        res.writeHead(201, { Location: '/live/whip/ok/n1.abc', ETag: '"e1"', 'Content-Type': 'application/sdp' }).end('answer');
      } else if (method === 'PATCH' && headers['if-match'] === '*') {
        res.writeHead(200, { ETag: '"e2"' }).end('fragment');
      } else if (method === 'PATCH' || method === 'DELETE') {
        res.writeHead(method === 'PATCH' ? 204 : 200).end();
      } else if (url.endsWith('/full')) {
        res.writeHead(503, { 'Content-Type': 'application/problem+json', 'Retry-After': '7' }).end('{"code":"node_full","detail":"no room"}');
      } else if (url.endsWith('/proxy')) {
        res.writeHead(502).end('<html>bad gateway</html>');
      } else if (url.endsWith('/nowhere')) {
        res.writeHead(201).end('answer');
      } else if (!url.endsWith('/silent')) {
        res.writeHead(409, { 'Content-Type': 'text/plain' }).end('{"detail":"no code here"}');
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
after(() => {
  server.closeAllConnections();
  server.close();
});

const never = new AbortController().signal;
const create = (path: string, signal = never): ReturnType<typeof Resource.create> => Resource.create(base + path, 'offer', 'tok', signal);

test('a session is made, trickled to, restarted and removed with the right headers', async () => {
  seen.length = 0;
  const { resource, sdp } = await create('/live/whip/ok');
  assert.equal(sdp, 'answer');
  assert.equal(resource.url, `${base}/live/whip/ok/n1.abc`);
  await resource.trickle('one', never);
  assert.equal(await resource.restart('two', never), 'fragment');
  await resource.trickle('three', never);
  await resource.remove();
  assert.deepEqual(
    seen.map((r) => [r.method, r.headers['content-type'], r.headers['if-match'], r.body]),
    [
      ['POST', 'application/sdp', undefined, 'offer'],
      ['PATCH', 'application/trickle-ice-sdpfrag', '"e1"', 'one'],
      ['PATCH', 'application/trickle-ice-sdpfrag', '*', 'two'],
      ['PATCH', 'application/trickle-ice-sdpfrag', '"e2"', 'three'],
      ['DELETE', undefined, undefined, ''],
    ],
  );
  assert.ok(seen.every((r) => r.headers.authorization === 'Bearer tok'));
});

for (const [path, code, wait] of [
  ['/live/whip/full', 'node_full', 7000],
  ['/live/whip/proxy', 'no_node', 0],
  ['/live/whip/other', 'stream_in_use', 0],
  ['/live/whip/nowhere', 'internal', 0],
] as const) {
  test(`${path} is the problem ${code}`, async () => {
    await assert.rejects(create(path), (p: Problem) => {
      assert.deepEqual([p.code, p.retryAfter], [code, wait]);
      return true;
    });
  });
}

test('a server that is not there, and one that does not answer, are unreachable', async () => {
  await assert.rejects(Resource.create('http://127.0.0.1:1/live/whip/x', 'o', '', never), { code: 'unreachable' });
  const stop = new AbortController();
  const hanging = create('/live/whip/silent', stop.signal);
  stop.abort();
  await assert.rejects(hanging, { code: 'unreachable' });
});
