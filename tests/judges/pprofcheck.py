#!/usr/bin/env python3
# A judge for the tests: reads and checks pprof files, independently of the code under test.
"""Independent pprof validator (no dependencies). Usage: pprofcheck.py [--folded] [--top N] [--json] FILE
Exit 0 valid, 1 violations, 2 unreadable. Rules E* = google/pprof Parse/CheckValid would reject; W* = profile.proto
text recommends / our extra strictness."""
import sys, gzip, struct, json, collections
def varint(b, i):
    r = s = 0
    while True:
        if i >= len(b): raise ValueError("truncated varint")
        c = b[i]; i += 1; r |= (c & 127) << s; s += 7
        if not c & 128: return r & (1 << 64) - 1, i
        if s > 63: raise ValueError("varint too long")
def fields(b):
    i = 0
    while i < len(b):
        k, i = varint(b, i); f, w = k >> 3, k & 7
        if f == 0: raise ValueError("field number 0")
        if w == 0: v, i = varint(b, i)
        elif w == 1: v = b[i:i+8]; i += 8
        elif w == 2:
            n, i = varint(b, i)
            if i + n > len(b): raise ValueError("truncated bytes field %d" % f)
            v = b[i:i+n]; i += n
        elif w == 5: v = b[i:i+4]; i += 4
        else: raise ValueError("wire type %d" % w)
        yield f, w, v
def packed(w, v):
    if w == 0: return [v]
    o, r, s = [], 0, 0
    for c in v:
        r |= (c & 127) << s; s += 7
        if not c & 128: o.append(r & (1 << 64) - 1); r = s = 0
        elif s > 63: raise ValueError("varint too long")
    if s: raise ValueError("truncated varint")
    return o
def s64(x): return x - (1 << 64) if x >> 63 else x
SPEC = {  # name: {field: (attr, kind)}
 'Profile': {1:('sample_type','*ValueType'),2:('sample','*Sample'),3:('mapping','*Mapping'),4:('location','*Location'),5:('function','*Function'),6:('string_table','*str'),7:('drop_frames','i'),8:('keep_frames','i'),9:('time_nanos','i'),10:('duration_nanos','i'),11:('period_type','ValueType'),12:('period','i'),13:('comment','*i'),14:('default_sample_type','i'),15:('doc_url','i')},
 'ValueType': {1:('type','i'),2:('unit','i')},
 'Sample': {1:('location_id','*i'),2:('value','*i'),3:('label','*Label')},
 'Label': {1:('key','i'),2:('str','i'),3:('num','i'),4:('num_unit','i')},
 'Mapping': {1:('id','i'),2:('memory_start','i'),3:('memory_limit','i'),4:('file_offset','i'),5:('filename','i'),6:('build_id','i'),7:('has_functions','i'),8:('has_filenames','i'),9:('has_line_numbers','i'),10:('has_inline_frames','i')},
 'Location': {1:('id','i'),2:('mapping_id','i'),3:('address','i'),4:('line','*Line'),5:('is_folded','i')},
 'Line': {1:('function_id','i'),2:('line','i'),3:('column','i')},
 'Function': {1:('id','i'),2:('name','i'),3:('system_name','i'),4:('filename','i'),5:('start_line','i')}}
UNK = collections.Counter()
class M:
    pass
def dec(name, b):
    m = M(); sp = SPEC[name]
    for a, k in sp.values(): setattr(m, a, [] if k[0] == '*' else (None if k[0].isupper() else 0))
    for f, w, v in fields(b):
        if f not in sp: UNK[(name, f)] += 1; continue
        a, k = sp[f]; rep = k[0] == '*'; k = k.lstrip('*')
        if k == 'i':
            if w not in (0, 2) or (w == 2 and not rep): raise ValueError("%s.%s wire type %d" % (name, a, w))
            xs = packed(w, v)
            if rep: getattr(m, a).extend(xs)
            else: setattr(m, a, xs[-1])
        else:
            if w != 2: raise ValueError("%s.%s wire type %d" % (name, a, w))
            x = v.decode('utf-8', 'strict') if k == 'str' else dec(k, bytes(v))
            getattr(m, a).append(x) if rep else setattr(m, a, x)
    return m
def load(path):
    raw = open(path, 'rb').read()
    gz = raw[:2] == b'\x1f\x8b'
    return dec('Profile', gzip.decompress(raw) if gz else raw), gz
def check(p, gz):
    E = []; W = []
    st = p.string_table
    if not gz: W.append("W1 not gzip-compressed")
    if not st or st[0] != '': E.append("E1 string_table[0] is not empty string")
    def S(i, what):
        if i >= len(st): E.append("E2 string index %d out of range in %s" % (i, what)); return ''
        return st[i]
    types = [(S(t.type,'sample_type'), S(t.unit,'sample_type')) for t in p.sample_type]
    if not types: (E if p.sample else W).append("E3 no sample_type")
    if any(not a or not b for a, b in types): W.append("W2 empty sample type or unit")
    if len(set(types)) != len(types): W.append("W3 duplicate sample types")
    def tab(xs, n):
        d = {}
        for x in xs:
            if x.id == 0: E.append("E4 %s id 0" % n)
            if x.id in d: E.append("E5 duplicate %s id %d" % (n, x.id))
            d[x.id] = x
        return d
    mp, lc, fn = tab(p.mapping,'mapping'), tab(p.location,'location'), tab(p.function,'function')
    for f in p.function:
        for a in ('name','system_name','filename'): S(getattr(f,a),'function')
        if not st[f.name:f.name+1] or not st[f.name]: W.append("W4 function %d has empty name" % f.id)
    prev = None
    for m in sorted(p.mapping, key=lambda m: m.memory_start):
        S(m.filename,'mapping'); S(m.build_id,'mapping')
        if m.memory_limit and m.memory_start >= m.memory_limit: W.append("W5 mapping %d start>=limit" % m.id)
        if prev and m.memory_start < prev.memory_limit: W.append("W6 mappings %d/%d overlap (multi-process profile?)" % (prev.id, m.id))
        prev = m
    used = set()
    for l in p.location:
        if l.mapping_id and l.mapping_id not in mp: E.append("E6 location %d: mapping %d missing" % (l.id, l.mapping_id))
        m = mp.get(l.mapping_id)
        if m and l.address and m.memory_limit and not (m.memory_start <= l.address < m.memory_limit): W.append("W7 location %d address %#x outside mapping %d" % (l.id, l.address, m.id))
        if not l.line and not l.address: W.append("W8 location %d has neither address nor line" % l.id)
        for ln in l.line:
            if ln.function_id not in fn: E.append("E7 location %d: function %d missing" % (l.id, ln.function_id))
    for n, s in enumerate(p.sample):
        if len(s.value) != len(types): E.append("E8 sample %d has %d values for %d types" % (n, len(s.value), len(types)))
        if not s.location_id: W.append("W9 sample %d has no locations" % n)
        for i in s.location_id:
            used.add(i)
            if i not in lc: E.append("E9 sample %d: location %d missing" % (n, i))
        if all(v == 0 for v in s.value): W.append("W10 sample %d all zero" % n)
        if any(s64(v) < 0 for v in s.value): W.append("W11 sample %d negative value" % n)
        for l in s.label:
            S(l.key,'label'); S(l.str,'label'); S(l.num_unit,'label')
            if l.str and l.num: W.append("W12 sample %d label has both str and num" % n)
    if set(lc) - used: W.append("W13 %d unreferenced locations" % len(set(lc) - used))
    if not p.time_nanos: W.append("W14 time_nanos unset")
    if not p.duration_nanos: W.append("W15 duration_nanos unset")
    if not p.period_type or not p.period: W.append("W16 period/period_type unset")
    if p.default_sample_type and S(p.default_sample_type,'default') not in [a for a,_ in types]: W.append("W17 default_sample_type not among sample types")
    for k, c in UNK.items(): W.append("W18 unknown field %s.%d x%d" % (k[0], k[1], c))
    if len(set(st)) != len(st): W.append("W19 duplicate strings in table")
    return E, W, types
def frames(p, l, m):
    st, fn = p.string_table, {f.id: f for f in p.function}
    if l.line: return [st[fn[x.function_id].name] for x in l.line]     # line[0] = innermost inlinee
    return ['%s+%#x' % (st[m.filename].rsplit('/',1)[-1], l.address - m.memory_start + m.file_offset) if m else '%#x' % l.address]
def stacks(p):
    lc = {l.id: l for l in p.location}; mp = {m.id: m for m in p.mapping}; fn = {f.id: f for f in p.function}; st = p.string_table
    cache = {}
    for s in p.sample:
        o = []
        for i in s.location_id:
            if i not in cache:
                l = lc[i]; m = mp.get(l.mapping_id)
                cache[i] = [st[fn[x.function_id].name] for x in l.line] if l.line else frames(p, l, m)
            o += cache[i]
        yield o[::-1], [s64(v) for v in s.value], s
def main():
    a = sys.argv[1:]; fold = '--folded' in a; js = '--json' in a
    idx = int(a[a.index('--index')+1]) if '--index' in a else -1
    f = [x for i, x in enumerate(a) if not x.startswith('--') and (i == 0 or a[i-1] not in ('--index','--top'))][0]
    try: p, gz = load(f)
    except Exception as e: print("unreadable: %s: %s" % (f, e), file=sys.stderr); return 2
    E, W, types = check(p, gz)
    if fold:
        c = collections.Counter()
        for st, v, _ in stacks(p): c[';'.join(x.replace(';', ':') for x in st)] += v[idx]
        for k in sorted(c): print(k, c[k])
    else:
        tot = [sum(s64(s.value[i]) for s in p.sample if i < len(s.value)) for i in range(len(types))]
        flat, cum = collections.Counter(), collections.Counter()
        if not E:
            for st, v, _ in stacks(p):
                if st and v:
                    flat[st[-1]] += v[idx]
                    for x in set(st): cum[x] += v[idx]
        print(json.dumps(dict(file=f, types=types, totals=tot, samples=len(p.sample), mappings=len(p.mapping), locations=len(p.location), functions=len(p.function), period=p.period, duration_nanos=s64(p.duration_nanos), labels=sorted({p.string_table[l.key] for s in p.sample for l in s.label}), errors=E[:20], warnings=collections.Counter(w.split()[0] for w in W), top_flat=flat.most_common(8)), indent=None if js else 1))
        if not js:
            for w in W[:6]: print("  ", w)
    return 1 if E else 0
sys.exit(main()) if __name__ == '__main__' else None
