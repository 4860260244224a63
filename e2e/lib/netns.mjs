// Two network namespaces with a cable between them, that loses packets: the kernel's own path, without a machine more.

import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const prefix = 'sluice-e2e-'; // of a namespace; then come the process that made it, and which it is
const path = `${process.env.PATH}:/usr/sbin:/sbin`;

/** What is missing to make namespaces, as a sentence; undefined: nothing. */
export function missing() {
  const packages = [['ip', 'iproute2'], ['nft', 'nftables']].filter(([program]) => spawnSync('sh', ['-c', `command -v ${program}`], { env: { PATH: path } }).status !== 0);
  if (packages.length > 0) {
    return `${packages.map(([program]) => program).join(' and ')} missing: apt-get install ${packages.map(([, name]) => name).join(' ')}`;
  }
  return process.getuid() === 0 ? undefined : 'network namespaces are for root: sudo make e2e-long';
}

function run(command, args, input) {
  const r = spawnSync(command, args, { input, encoding: 'utf8', env: { ...process.env, PATH: path } });
  if (r.status !== 0) {
    throw new Error(`${command} ${args.join(' ')}: ${r.error?.message ?? r.stderr.trim()}`);
  }
  return r.stdout;
}

// Namespaces of runs that were killed.
function sweep() {
  for (const line of run('ip', ['netns', 'list']).split('\n')) {
    const [name] = line.split(' ');
    const pid = name.startsWith(prefix) && Number(name.slice(prefix.length).split('-')[0]);
    if (pid && spawnSync('kill', ['-0', String(pid)]).status !== 0) {
      spawnSync('ip', ['netns', 'del', name], { env: { PATH: path } });
    }
  }
}

/**
 * Makes the namespaces: {near, far, remove()}. Each is {name, address, spawn(), wrapper(), loses(), rate(), udp()}.
 * They go with remove(), and when this process ends for whatever reason.
 */
export function namespaces() {
  const why = missing();
  if (why) {
    throw new Error(why);
  }
  sweep();
  const dir = mkdtempSync(join(tmpdir(), prefix));
  const ends = ['near', 'far'].map((which, i) => end(`${prefix}${process.pid}-${which}`, `10.88.7.${i + 1}`, dir));
  const remove = () => {
    ends.forEach((e) => spawnSync('ip', ['netns', 'del', e.name], { env: { PATH: path } })); // the cable goes with them
    rmSync(dir, { recursive: true, force: true });
  };
  const interrupted = () => process.exit(1);
  process.once('exit', remove).once('SIGTERM', interrupted).once('SIGINT', interrupted);
  try {
    ends.forEach((e) => run('ip', ['netns', 'add', e.name]));
    const [near, far] = ends;
    run('ip', ['-n', near.name, 'link', 'add', 'cable', 'type', 'veth', 'peer', 'name', 'cable', 'netns', far.name]);
    for (const e of ends) {
      // A message that the kernel is to cut goes through a veth uncut, and would be lost as one: it must be cut before.
      run('ip', ['-n', e.name, 'link', 'set', 'cable', 'gso_max_segs', '1']);
      run('ip', ['-n', e.name, 'address', 'add', `${e.address}/24`, 'dev', 'cable']);
      for (const link of ['lo', 'cable']) {
        run('ip', ['-n', e.name, 'link', 'set', link, 'up']);
      }
    }
    return { near, far, remove: () => { process.off('exit', remove).off('SIGTERM', interrupted).off('SIGINT', interrupted); remove(); } };
  } catch (e) {
    remove();
    throw e;
  }
}

function end(name, address, dir) {
  const inside = ['netns', 'exec', name];
  return {
    name,
    address,

    /** Starts a program in the namespace. */
    spawn: (program, args, options = {}) => spawn('ip', [...inside, program, ...args.map(String)], { env: { ...process.env, PATH: path }, ...options }),

    /** A program that runs another in the namespace, for those who want the path of an executable. */
    wrapper(program) {
      const file = join(dir, `${name}.sh`);
      writeFileSync(file, `#!/bin/sh\nexec ip netns exec ${name} ${program} "$@"\n`);
      chmodSync(file, 0o755);
      return file;
    },

    /** Loses a share of the UDP packets that come to the namespace by the cable, 0 to 1. */
    loses(share) {
      run('ip', [...inside, 'nft', '-f', '-'], `
        table inet bad
        delete table inet bad
        table inet bad {
          chain in {
            type filter hook input priority 0;
            iif != "lo" meta l4proto udp counter comment "came"
            iif != "lo" meta l4proto udp numgen random mod 1000 < ${Math.round(share * 1000)} counter drop comment "lost"
          }
        }`);
    },

    /** Lets so many bit/s out of the namespace by the cable, with a queue of so many milliseconds; 0: as many as come. */
    rate(bits, queue = 300) {
      if (bits === 0) {
        spawnSync('tc', ['-n', name, 'qdisc', 'del', 'dev', 'cable', 'root'], { env: { PATH: path } });
        return;
      }
      run('tc', ['-n', name, 'qdisc', 'replace', 'dev', 'cable', 'root', 'tbf', 'rate', `${Math.round(bits)}bit`, 'burst', '4000', 'latency', `${queue}ms`]);
    },

    /** How many UDP packets came, and how many of them were lost, since loses. */
    udp() {
      const rules = JSON.parse(run('ip', [...inside, 'nft', '-j', 'list', 'table', 'inet', 'bad'])).nftables.map((x) => x.rule).filter(Boolean);
      const packets = (comment) => rules.find((r) => r.comment === comment).expr.find((x) => x.counter).counter.packets;
      return { came: packets('came'), lost: packets('lost') };
    },
  };
}
