import assert from 'node:assert/strict';
import { test } from 'node:test';
import { layerName, rateName, readLayers, selectionBody } from './layers.js';

const whole = { rid: 'source', width: 1280, height: 720, bitrate: 2_400_000 };
const small = { rid: '240p', width: 426, height: 240, bitrate: 400_000 };

for (const c of [
  { name: 'two renditions, one of which does not come', data: '{"1":[{"rid":"source","bitrate":2400000,"width":1280,"height":720},{"rid":"240p","targetBitrate":400000,"width":426,"height":240}]}', want: [whole, small] },
  { name: 'no size', data: '{"0":[{"rid":"h"}]}', want: [{ rid: 'h', width: 0, height: 0, bitrate: 0 }] },
  { name: 'none', data: '{}', want: [] },
  { name: 'layers without a name', data: '{"0":[{"spatialLayerId":1},null,3]}', want: [] },
  { name: 'another form', data: '{"0":{"layers":[]}}', want: [] },
  { name: 'not JSON', data: 'x', want: [] },
  { name: 'null', data: 'null', want: [] },
]) {
  test(`layers: ${c.name}`, () => assert.deepEqual(readLayers(c.data), c.want));
}

test('names of renditions', () => {
  assert.equal(layerName(whole), '720p');
  assert.equal(layerName({ ...whole, width: 720, height: 1280 }), '720p');
  assert.equal(layerName({ ...whole, width: 0 }), '720p');
  assert.equal(layerName({ rid: 'h', width: 0, height: 0, bitrate: 0 }), 'h');
  assert.deepEqual([2_400_000, 400_000, 0].map(rateName), ['2.4 Mbit/s', '400 kbit/s', '']);
});

test('what is asked for', () => {
  assert.equal(selectionBody({ rid: '', enabled: true }, [whole]), '{}');
  assert.equal(selectionBody({ rid: 'source', enabled: true }, [whole]), '{"rid":"source"}');
  assert.equal(selectionBody({ rid: '240p', enabled: false }, [whole, small]), '{"rid":"240p","enabled":false}');
  assert.equal(selectionBody({ rid: 'gone', enabled: true }, [whole]), '{}');
});
