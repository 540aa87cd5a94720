#!/usr/bin/env python3
# A judge for the tests: elfutils' eu-stack on a process that runs, against a recording of it.
"""paths.py PID RECORDING STOPS: stops the process at random moments, until it has so many stacks that
count, or six times as often. A path is a stack's functions from
root to leaf, where a function is what .eh_frame describes as one, by binutils' readelf. Prints how
many there are of each; exit 1 if one of the two saw a path so often, and the other not at all, that chance would
do it in one of 10,000 runs only. Where eu-stack itself does not get to the first
function, as in the last instructions of _Unwind_Resume, its path is none: of a tenth at most."""
import bisect
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import cache


def run(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


@cache
def functions(path):
    """(segments, starts, ends): [(offset, vaddr, bytes)], and functions by address."""
    segments = [tuple(int(n, 16) for n in m) for m in
                re.findall(r'LOAD\s+0x(\w+) 0x(\w+) 0x\w+ 0x(\w+)', run('readelf', '-lW', path))]
    found = {int(a, 16): int(b, 16)
             for a, b in re.findall(r' FDE .* pc=(\w+)\.\.(\w+)', run('readelf', '--debug-dump=frames', path))}
    starts = sorted(found)
    return segments, starts, [found[start] for start in starts]


def function(path, offset):
    if not path.startswith('/'):
        return path, 0
    segments, starts, ends = functions(path)
    for start, vaddr, size in segments:
        if start <= offset < start + size:
            address = offset - start + vaddr
            i = bisect.bisect(starts, address) - 1
            return os.path.basename(path), starts[i] if i >= 0 and address < ends[i] else 0
    return path, -1


def in_kernel(path):
    """Whether a mapping is of the kernel, whose addresses are told as offsets: its image, a module, a BPF program."""
    of_programs = '[vdso]', '[vsyscall]', '[uprobes]', '[jit]', '[python]', '[javascript]', '[java]', '[unmapped]'
    return path.startswith('[') and path not in of_programs


def recorded(recording):
    """Paths of whole user stacks, and the number of samples."""
    mappings, locations, paths, total = {}, {}, Counter(), 0
    dump = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'dump.py')
    for line in run(sys.executable, dump, recording).splitlines():
        words = line.split('\t')
        if words[0] == 'mapping':
            mappings[words[1]] = int(words[2]), int(words[4]), words[5]
        elif words[0] == 'location':
            address = int(words[3])
            if len(words) > 4 and words[4].startswith('[truncated'):
                locations[words[1]] = None
            elif words[2] in mappings and not in_kernel(mappings[words[2]][2]):
                start, offset, path = mappings[words[2]]
                locations[words[1]] = function(path, address - start + offset), words[4] if len(words) > 4 else '?'
        elif words[0] == 'sample':
            total += int(words[1])
            frames = [locations[i] for i in words[6:] if i in locations]
            if frames and None not in frames:
                paths[tuple(f for f, _ in reversed(frames))] += int(words[1])
                NAMES.update(frames)
    return paths, total


def states(pid):
    """Threads that run."""
    for tid in os.listdir('/proc/%d/task' % pid):
        with open('/proc/%d/task/%s/stat' % (pid, tid)) as stat:
            if stat.read().rsplit(')', 1)[1].split()[0] == 'R':
                yield tid


def after_system_call(pid, thread):
    """Whether it stopped where a system call returns: signals are taken there, so a stop finds it
    many times as often as a sample does."""
    leaf = re.search(r'#0\s+0x(\w+)', thread)
    if not leaf:
        return False
    with open('/proc/%d/mem' % pid, 'rb') as memory:
        memory.seek(int(leaf[1], 16) - len(SYSCALL))
        return memory.read(len(SYSCALL)) == SYSCALL


def seen(pid, stops):
    """Paths that eu-stack sees, and the number of stacks."""
    with open('/proc/%d/maps' % pid) as lines:
        maps = [re.match(r'(\w+)-(\w+) (\S+) (\w+) \S+ \S+\s*(.*)', line) for line in lines]
    maps = [(int(m[1], 16), int(m[2], 16), int(m[4], 16), m[5]) for m in maps]
    paths, total = Counter(), 0
    for _ in range(6 * stops):
        if total >= stops:
            break
        time.sleep(random.uniform(0.002, 0.03))
        running = set(states(pid))
        os.kill(pid, signal.SIGSTOP)
        text = run('eu-stack', '-a', '-p', str(pid))
        threads = [(thread, after_system_call(pid, thread)) for thread in text.split('TID ')[1:]]
        os.kill(pid, signal.SIGCONT)
        for thread, calls in threads:
            if calls or thread.split(':')[0] not in running:
                continue
            total += 1
            path = []
            for address, back, name in re.findall(r'#\d+\s+0x(\w+)( - 1)? *(.*)', thread):
                address = int(address, 16) - bool(back)
                found = [f for f in maps if f[0] <= address < f[1]]
                if not found:
                    break
                start, _, offset, file = found[0]
                path.append(function(file, address - start + offset))
                NAMES.setdefault(path[-1], name)
            paths[tuple(reversed(path))] += 1
    return paths, total


NAMES = {}
SYSCALL = b'\x0f\x05'  # x86_64's
pid, recording, stops = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
ours, samples = recorded(recording)
theirs, stacks = seen(pid, stops)
roots = {path[0] for path in ours}
whole = Counter({path: n for path, n in theirs.items() if path and path[0] in roots})
broken, theirs = stacks - sum(whole.values()), whole
print('%d paths in %d samples; eu-stack saw %d at %d stops, and %d broken ones'
      % (len(ours), samples, len(theirs), stacks, broken))
# A path of which both together have n stacks has all of them on one side by this chance, and of all paths
# that have n, that many times as often: programs with many rare paths show some to one side alone.
together = Counter(ours) + theirs
alike = Counter(together.values())


def beyond_chance(n, side):
    return (side / (stacks + samples)) ** n * alike[n] < 1e-4


wrong = [('eu-stack %d times' % n, path) for path, n in theirs.items() if path not in ours and beyond_chance(n, stacks)]
wrong += [('we %d times' % n, path) for path, n in ours.items() if path not in theirs and beyond_chance(n, samples)]
for who, path in wrong:
    print('only %s: %s' % (who, ';'.join('%s' % NAMES.get(f, f) for f in path)))
sys.exit(bool(wrong) or stacks < stops / 4 or broken > stacks / 10)
