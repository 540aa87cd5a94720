#!/usr/bin/env python3
# A judge for the tests: what binutils' readelf says about unwinding, against `profiler unwind-table`.
"""ehrows.py PROFILER ELF…: for every row of either, prints where the rules differ, at most 20 a file.
Exit 0 if none does. Expressions, which readelf's table does not spell out, are taken from its dump
of the instructions; one that has no rule is printed, and may be not understood.

ehrows.py --random N PROFILER ELF…: the same at N random addresses of each file's code, by the rules
that a walk finds there, in arrays as the kernel has them.

A procedure linkage table that readelf has no rows for is left out."""
import bisect
import os
import random
import re
import subprocess
import sys
from collections import Counter
from sys import intern

ROW = re.compile(r'([0-9a-f]{8}|[0-9a-f]{16})\s+(?!ZERO)(.*)')
HEAD = re.compile(r'([0-9a-f]+) [0-9a-f]+ [0-9a-f]+ (?:(CIE) "(.*?)"|FDE cie=([0-9a-f]+) pc=([0-9a-f]+)\.\.([0-9a-f]+))')
CELL = re.compile(r'r\d+ \((\w+)\)|(\S+)')


def readelf(option, elf, *sections):
    """Lines of readelf's dump, each with the section that it is of."""
    child = subprocess.Popen(['readelf', '-W', option, elf, *sections], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    section = None
    for line in child.stdout:
        if line.startswith('Contents of the '):
            section = line.split()[3]
        yield section, line.rstrip()
    child.wait()


def is_for(elf, machine):
    return machine in subprocess.run(['readelf', '-h', elf], stdout=subprocess.PIPE, text=True).stdout


def translate(expression):
    """A DWARF expression in readelf's words, in ours."""
    m = re.fullmatch(r'DW_OP_breg\d+ \((\w+)\): (-?\d+); DW_OP_deref(?:; DW_OP_plus_uconst: (\d+))?', expression)
    if m:
        return '*(%s%+d)%+d' % (m[1], int(m[2]), int(m[3] or 0))
    m = re.fullmatch(r'(?:DW_OP_breg7 \(rsp\): 8; DW_OP_breg16 \(rip\): 0|DW_OP_breg4 \(esp\): 4; DW_OP_breg8 \(eip\): 0); '
                     r'DW_OP_lit15; DW_OP_and; DW_OP_lit(\d+); DW_OP_ge; DW_OP_lit[32]; DW_OP_shl; DW_OP_plus', expression)
    if m:
        return 'plt(%s)' % m[1]
    m = re.fullmatch(r'DW_OP_breg7 \(rsp\): (-?\d+); DW_OP_breg\d+ \((\w+)\): 0; DW_OP_lit8; DW_OP_mul; DW_OP_plus; '
                     r'DW_OP_deref; DW_OP_plus_uconst: (\d+)', expression)
    if m:
        return '*(rsp%+d+8*%s)%+d' % (int(m[1]), m[2], int(m[3]))
    m = re.fullmatch(r'DW_OP_breg\d+ \((\w+)\): (-?\d+)', expression)
    return '*(%s%+d)' % (m[1], int(m[2])) if m else '?' + expression


def expressions(elf):
    """By FDE: its CFA's and rbp's expressions."""
    found, entry = {}, None
    for section, line in readelf('-wfN', elf):
        m = HEAD.match(line)
        if m:
            entry = (section, m[1])
            continue
        if line.strip() == 'DW_CFA_undefined: r30 (x30)':
            found[entry, 'end'] = ['end-of-stack']
        m = re.match(r'\s+DW_CFA_(def_cfa_expression|expression: r6 \(rbp\)|expression: r5 \(ebp\)|expression: r8 \(eip\)) \((.*)\)$', line)
        if m:
            kind = 'cfa' if m[1].startswith('def') else 'ra' if m[1].endswith('(eip)') else 'rbp'
            found.setdefault((entry, kind), []).append(translate(m[2]))
    return found


def expected(cells, names, signal, arm_ra, is_32):
    """Our words for a row of readelf's; 'exp' stands for an expression."""
    row = dict(zip(names, (intern(m[1] or m[2]) for m in CELL.finditer(cells))))
    ra = row.get('ra', 'u')
    if signal and is_32 and ra == 'exp':
        return intern('%s %s exp' % (row['CFA'], row.get('ebp', 'u')))
    if signal:
        return 'signal-frame'
    if arm_ra:
        if arm_ra != 30:
            return 'not-understood: return address'
        # readelf has one sign for a register that is kept and for one that is lost.
        ra = 'x30' if ra in 'us' else ra
        return intern('%s %s %s' % (row['CFA'], row.get('x29', 'u').replace('s', 'u'), ra))
    if ra == 'u':
        return 'end-of-stack'
    if ra != ('c-4' if is_32 else 'c-8') and (is_32 or not re.fullmatch(r'r\w+', ra)):
        return 'not-understood: return address'
    if row.get('esp' if is_32 else 'rsp', 'u') != 'u':
        return 'not-understood: stack pointer'
    rbp = row.get('ebp' if is_32 else 'rbp', 'u')
    if rbp == 's':
        rbp = 'u'
    elif rbp.startswith('v'):
        rbp = 'lost'
    return intern('%s %s %s' % (row['CFA'], rbp, ra))


def theirs(elf):
    """[(start, end, entry, [(pc, rule)])] by start, the first FDE for each start only. What .eh_frame
    describes in part, .debug_frame does not count for."""
    cies, rows, names, signal = {}, None, [], False
    described = {'.eh_frame': {}, '.debug_frame': {}}
    arm = arm_ra = is_for(elf, 'AArch64')
    is_32 = is_for(elf, 'Intel 80386')
    for section, line in readelf('-wNF', elf):
        m = HEAD.match(line)
        if m and m[2]:
            rows, names = [], []
            signal = 'S' in m[3]
            arm_ra = arm and int(line.split('ra=')[1])
            cies[section, m[1]] = (rows, signal, arm_ra)
        elif m:
            start, end = int(m[5], 16), int(m[6], 16)
            initial, signal, arm_ra = cies[section, m[4]]
            rows, names = [], []
            fdes = described[section]
            if start and end > start and start not in fdes:
                fdes[start] = (end, (section, m[1]), rows, initial)
        elif line.lstrip().startswith('LOC'):
            names = line.split()[1:]
        else:
            m = ROW.match(line)
            if m:
                rows.append((int(m[1], 16), expected(m[2], names, signal, arm_ra, is_32)))

    def cut(fdes):
        found = [(start, end, entry, rows or [(start, initial[0][1])])
                 for start, (end, entry, rows, initial) in sorted(fdes.items())]
        ends = [start for start, *_ in found[1:]] + [1 << 64]
        return [(start, min(end, next), entry, rows) for (start, end, entry, rows), next in zip(found, ends)]

    first = cut(described['.eh_frame'])
    starts = [start for start, *_ in first]

    def is_new(start, end):
        at = bisect.bisect_left(starts, end) - 1
        return at < 0 or first[at][1] <= start

    more = [fde for fde in cut(described['.debug_frame']) if is_new(fde[0], fde[1])]
    return sorted(first + more, key=lambda fde: fde[0])


def flatten(fdes):
    """[(pc, rule, entry)]: each FDE up to its end or the next one's start, gaps uncovered."""
    flat = []
    for i, (start, end, entry, rows) in enumerate(fdes):
        if i + 1 < len(fdes):
            end = min(end, fdes[i + 1][0])
        flat += [(pc, rule, entry) for pc, rule in rows if pc < end]
        flat.append((end, 'uncovered', entry))
    return flat


def undescribed_stubs(elf, flat):
    """[(start, end)] of procedure linkage tables that readelf has no rows for."""
    starts = [pc for pc, *_ in flat]
    found = []
    for _, line in readelf('-S', elf):
        m = re.match(r'\s*\[[ \d]+\] (\.i?plt\S*)\s+PROGBITS\s+(\w+) \w+ (\w+)', line)
        if m:
            start, end = int(m[2], 16), int(m[2], 16) + int(m[3], 16)
            at = bisect.bisect(starts, start) - 1
            if (at < 0 or flat[at][1] == 'uncovered') and not any(pc < end for pc in starts[at + 1:at + 2]):
                found.append((start, end))
    return found


def ours(profiler, elf):
    child = subprocess.Popen([profiler, 'unwind-table', elf], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    next(child.stdout, None)
    for line in child.stdout:
        words = line.split()
        yield int(words[0], 16), intern(' '.join(words[2:]))
    if child.wait() != 0:
        sys.exit('%s unwind-table %s failed' % (profiler, elf))


def as_kept(rule):
    """A rule in the words that are left of it in the arrays: by offset from sp or rbp or from the CFA,
    a frame pointer is at the same place; one in another register is lost there."""
    if rule.startswith('not-understood'):
        return 'not-understood'
    words = rule.split()
    if len(words) == 3:
        cfa, place = (re.fullmatch(r'(r[sb]p)([+-]\d+)', words[0]), re.fullmatch(r'\*\((r[sb]p)([+-]\d+)\)', words[1]))
        if cfa and place and cfa[1] == place[1]:
            words[1] = 'c%+d' % (int(place[2]) - int(cfa[2]))
        elif re.fullmatch(r'r\w+', words[1]):
            words[1] = 'lost'
    return ' '.join(words)


def same(rule, found, entry, spelled, arrays=False):
    """Whether our rule is theirs, or is one that their expressions spell."""
    if found == 'end-of-stack' and rule.endswith(' x30'):
        return (entry, 'end') in spelled()
    if rule == found:
        return True
    if 'exp' not in rule:
        return arrays and as_kept(rule) == as_kept(found)
    if found.startswith('not-understood: CFA expression' if not arrays else 'not-understood'):
        return rule.startswith('exp ') and any(e.startswith('?') for e in spelled().get((entry, 'cfa'), []))
    want, have = rule.split(), found.split()
    if len(want) != len(have):
        return False
    for kind, a, b in zip(('cfa', 'rbp', 'ra'), want, have):
        texts = spelled().get((entry, kind), []) if a == 'exp' else []
        if a != b and b not in texts and not (b == 'lost' and any(e.startswith('?') for e in texts)):
            return False
    return True


def random_addresses(elf, n):
    """Uniformly from the segments that hold code."""
    code = []
    for _, line in readelf('-l', elf):
        m = re.match(r'\s*LOAD\s+0x\w+ 0x(\w+) 0x\w+ 0x(\w+) 0x\w+ .{2}E', line)
        if m:
            code.append((int(m[1], 16), int(m[2], 16)))
    starts, sizes = zip(*code)
    return [random.randrange(start, start + size) for start, size in
            (code[i] for i in random.choices(range(len(code)), sizes, k=n))]


def judge_random(profiler, elf, n, seed):
    random.seed(seed)
    flat = flatten(theirs(elf))
    starts, stubs = [pc for pc, *_ in flat], undescribed_stubs(elf, flat)
    addresses = [pc for pc in random_addresses(elf, n) if not any(start <= pc < end for start, end in stubs)]
    child = subprocess.run([profiler, 'unwind-table', '--addresses', elf], input=''.join('%x\n' % pc for pc in addresses),
                           stdout=subprocess.PIPE, text=True, check=True)
    found = [' '.join(line.split()) for line in child.stdout.splitlines()]
    cache, wrong, covered = [], [], 0

    def spelled():
        if not cache:
            cache.append(expressions(elf))
        return cache[0]

    for pc, have in zip(addresses, found, strict=True):
        at = bisect.bisect(starts, pc) - 1
        want, entry = flat[at][1:] if at >= 0 else ('uncovered', '')
        covered += want != 'uncovered'
        if not same(want, have, entry, spelled, arrays=True):
            wrong.append((pc, want, have))
    print('%s: %d random addresses, %d described, %d differ (seed %d)'
          % (os.path.basename(elf), len(addresses), covered, len(wrong), seed))
    for pc, want, have in wrong[:20]:
        print('  %#x: readelf %s, found %s' % (pc, want, have))
    return not wrong and covered > n / 100


def judge(profiler, elf):
    right, left = flatten(theirs(elf)), list(ours(profiler, elf))
    stubs = undescribed_stubs(elf, right)
    left = [(pc, 'uncovered' if any(start <= pc < end for start, end in stubs) else rule) for pc, rule in left]
    cache = []

    def spelled():
        if not cache:
            cache.append(expressions(elf))
        return cache[0]

    i, j, wrong, spelled_rows = 0, 0, [], 0
    want, entry, have = 'uncovered', '', 'uncovered'
    while i < len(right) or j < len(left):
        pc = min(right[i][0] if i < len(right) else 1 << 64, left[j][0] if j < len(left) else 1 << 64)
        while i < len(right) and right[i][0] == pc:
            want, entry = right[i][1:]
            i += 1
        while j < len(left) and left[j][0] == pc:
            have = left[j][1]
            j += 1
        spelled_rows += 'exp' in want.split()
        if not same(want, have, entry, spelled):
            wrong.append((pc, want, have))
    print('%s: readelf %d rows, ours %d, %d with expressions, %d differ'
          % (os.path.basename(elf), len(right), len(left), spelled_rows, len(wrong)))
    kinds = Counter((re.sub(r'\d+', 'N', want), re.sub(r'\d+', 'N', have)) for _, want, have in wrong)
    for (want, have), count in kinds.most_common(20):
        print('  %d times: readelf %s, ours %s' % (count, want, have))
    for (entry, kind), texts in sorted(cache[0].items() if cache else []):
        for text in texts:
            if text.startswith('?'):
                print('  no rule for %s: %s' % (kind, text[1:]))
    for pc, want, have in wrong[:20]:
        print('  %#x: readelf %s, ours %s' % (pc, want, have))
    return not wrong and bool(right)


def main(args):
    if args[0] == '--random':
        seed = random.randrange(1 << 32)
        results = [judge_random(args[2], elf, int(args[1]), seed) for elf in args[3:]]
    else:
        results = [judge(args[0], elf) for elf in args[1:]]
    sys.exit(0 if results and all(results) else 1)


if __name__ == '__main__':
    main(sys.argv[1:])
