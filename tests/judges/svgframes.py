#!/usr/bin/env python3
# A judge for the tests: reads flamegraphs by meaning, independently of the code under test.
"""Semantic flamegraph SVG comparer (flamegraph.pl, inferno, or any tool in that dialect). No dependencies.
  svgframes.py dump A.svg                      -> depth start count name   (one line per frame)
  svgframes.py paths A.svg                     -> path;from;root inclusive_count
  svgframes.py cmp A.svg B.svg [--minpct P]    -> compare frame trees (inclusive samples per root path, geometry)
  svgframes.py oracle IN.folded A.svg [--minpct P] [--inverted-ok]  -> judge SVG against folded text itself
Frames narrower than P % of the total (default 0.1) may be missing from either side (both tools prune slivers).
Exit 0 = equal, 1 = differences, 2 = not a flamegraph / malformed XML."""
import sys, re, collections
import xml.etree.ElementTree as ET
ANN = re.compile(r'_\[[kwij]\]$')
TITLE = re.compile(r'^(?P<name>.*) \((?P<n>[\d,.]+) (?P<unit>[^,()]*), (?P<pct>[\d.]+)%(?P<rest>[^()]*)\)$', re.S)
GROUP = re.compile(r'^\[[\d,]+ functions? (below|and their)')
def local(t): return t.rsplit('}', 1)[-1]
def num(s):
    s = s.strip(); return (float(s[:-1]), True) if s.endswith('%') else (float(s), False)
def parse(path):
    """-> (frames, info); frames: dicts name,count,pct,x,w (fractions 0..1 of root),y,depth"""
    root = ET.parse(path).getroot(); fr = []; info = {}
    if local(root.tag) != 'svg': raise ValueError('root element is not <svg>')
    info['viewbox'] = root.get('viewBox'); info['width'] = root.get('width'); info['script'] = any(local(e.tag) == 'script' for e in root.iter())
    info['texts'] = [''.join(e.itertext()) for e in root.iter() if local(e.tag) == 'text' and e.get('id')]
    for e in root.iter():
        if e.get('total_samples'): info['total'] = int(e.get('total_samples'))
    for g in root.iter():
        if local(g.tag) not in ('g', 'a'): continue
        t = [c for c in g if local(c.tag) == 'title']; r = [c for c in g if local(c.tag) == 'rect']
        if len(t) != 1 or len(r) != 1: continue
        m = TITLE.match(t[0].text or '')
        if not m: info.setdefault('badtitles', []).append(t[0].text); continue
        x, px = num(r[0].get('x')); w, pw = num(r[0].get('width')); y = float(r[0].get('y'))
        if px != pw: raise ValueError('mixed units in rect')
        f = dict(name=ANN.sub('', m['name']).strip(), count=float(m['n'].replace(',', '')), pct=float(m['pct']), unit=m['unit'], x=x, w=w, y=y,
                 fill=r[0].get('fill'), h=float(r[0].get('height')), rest=m['rest'], text=next((''.join(c.itertext()) for c in g if local(c.tag) == 'text'), ''))
        for k, v in r[0].attrib.items():
            if local(k) == 'x' and k != 'x': f['fgx'] = int(v)
            if local(k) == 'w' and k != 'w': f['fgw'] = int(v)
        if 'fgw' in f:
            # Titles have values in units that suit them; the attribute is the value itself.
            f['titled'], f['count'] = f['count'], f['fgw']
        if GROUP.match(f['name']): continue
        fr.append(f)
    if not fr: raise ValueError('no frames found')
    R = max(fr, key=lambda f: f['w']); ys = sorted({f['y'] for f in fr})
    wide = [f for f in fr if abs(f['w'] - R['w']) < 1e-6 and f['y'] in (ys[0], ys[-1])]
    # root row: the extreme row holding exactly one full-width frame; prefer the one named all / the bottom
    cand = [f for f in wide if f['name'] in ('all', '')] or wide
    R = max(cand, key=lambda f: f['y']) if not any(f['name'] == 'all' for f in cand) else next(f for f in cand if f['name'] == 'all')
    info['inverted'] = R['y'] == ys[0] and len(ys) > 1; order = ys if info['inverted'] else ys[::-1]
    steps = {round(abs(b - a), 3) for a, b in zip(order, order[1:])}; info['rowstep'] = sorted(steps)
    x0, w0 = R['x'], R['w']
    for f in fr:
        f['depth'] = order.index(f['y']); f['fx'] = (f['x'] - x0) / w0; f['fw'] = f['w'] / w0
    info['total'] = info.get('total', R['count']); info['root'] = R['name']
    return fr, info
def tree(fr):
    """root path -> inclusive count; also geometric faults"""
    rows = collections.defaultdict(list); faults = []; paths = collections.Counter()
    for f in fr: rows[f['depth']].append(f)
    eps = 3e-4
    for d in sorted(rows):
        row = sorted(rows[d], key=lambda f: f['fx'])
        for a, b in zip(row, row[1:]):
            if b['fx'] < a['fx'] + a['fw'] - eps: faults.append('overlap at depth %d: %s / %s' % (d, a['name'], b['name']))
        for f in row:
            if d == 0: f['path'] = (); paths[()] += f['count']; continue
            par = [p for p in rows[d-1] if p['fx'] - eps <= f['fx'] + f['fw']/2 <= p['fx'] + p['fw'] + eps and p['fx'] - eps <= f['fx'] and f['fx'] + f['fw'] <= p['fx'] + p['fw'] + eps]
            if not par: faults.append('frame without parent at depth %d: %s' % (d, f['name'])); f['path'] = None; continue
            p = min(par, key=lambda p: abs(p['fx'] + p['fw']/2 - f['fx'] - f['fw']/2)) if len(par) > 1 else par[0]
            if p.get('path') is None: f['path'] = None; continue
            f['path'] = p['path'] + (f['name'],); paths[f['path']] += f['count']
    return paths, faults
def geom(fr, info):
    """width must equal count/total; title percentage must equal count/total"""
    T = info['total']; bad = []
    for f in fr:
        if abs(f['fw'] - f['count'] / T) > 4e-4: bad.append('width %.4f != count share %.4f: %s' % (f['fw'], f['count']/T, f['name']))
        if abs(f['pct'] - 100 * f['count'] / T) > 0.0101: bad.append('title pct %.2f != %.3f: %s' % (f['pct'], 100*f['count']/T, f['name']))
        if f.get('fgw') is not None and f['fgw'] != f['count']: bad.append('fg:w %s != count %s: %s' % (f['fgw'], f['count'], f['name']))
    return bad
def folded(path):
    c = collections.Counter(); tot = 0
    for line in open(path, encoding='utf-8', errors='replace'):
        m = re.match(r'^(.*) (\d+(?:\.\d+)?)\s*$', line.rstrip('\n'))
        if not m: continue
        st = tuple(ANN.sub('', x).strip() for x in m[1].split(';')); n = float(m[2]); tot += n
        for i in range(len(st) + 1): c[st[:i]] += n
    return c, tot
def diff(A, B, tot, minpct, la='A', lb='B'):
    out = []; lim = tot * minpct / 100; pruned = 0
    for k in sorted(set(A) | set(B)):
        a, b = A.get(k, 0), B.get(k, 0)
        if abs(a - b) < 1e-6: continue
        if max(a, b) <= lim: pruned += 1; continue
        if a and b and abs(a - b) <= lim: pruned += 1; continue   # same-name siblings split by a pruned neighbour
        out.append('%s=%g %s=%g  %s' % (la, a, lb, b, ';'.join(k) or '(root)'))
    return out, pruned
def main(a):
    minpct = float(a[a.index('--minpct') + 1]) if '--minpct' in a else 0.1
    pos = [x for i, x in enumerate(a) if not x.startswith('--') and (i == 0 or a[i-1] != '--minpct')]
    cmd = pos[0]
    try:
        if cmd in ('dump', 'paths'):
            fr, info = parse(pos[1]); p, faults = tree(fr)
            if cmd == 'dump':
                print('#', {k: v for k, v in info.items() if k != 'texts'})
                for f in sorted(fr, key=lambda f: (f['depth'], f['fx'])): print(f['depth'], '%.5f' % f['fx'], '%g' % f['count'], f['name'])
            else:
                for k in sorted(p): print(';'.join(k), '%g' % p[k])
            return 0
        if cmd == 'cmp':
            (fa, ia), (fb, ib) = parse(pos[1]), parse(pos[2]); (A, ga), (B, gb) = tree(fa), tree(fb)
            ga += geom(fa, ia); gb += geom(fb, ib); d, pr = diff(A, B, ia['total'], minpct)
            if ia['total'] != ib['total']: d.insert(0, 'total %s != %s' % (ia['total'], ib['total']))
        else:
            A, tot = folded(pos[1]); fb, ib = parse(pos[2]); B, gb = tree(fb); gb += geom(fb, ib); ga = []; ia = dict(total=tot); fa = A
            d, pr = diff(A, B, tot, minpct, 'folded', 'svg')
            if tot != ib['total']: d.insert(0, 'total %s != %s' % (tot, ib['total']))
    except (ET.ParseError, ValueError, TypeError) as e:
        print('MALFORMED', e); return 2
    print('frames A=%d B=%d paths A=%d B=%d total A=%g B=%g  tolerated(pruned)=%d  differences=%d  geometry faults A=%d B=%d' % (len(fa), len(fb), len(A), len(B), ia['total'], ib['total'], pr, len(d), len(ga), len(gb)))
    for x in d[:8]: print('  DIFF', x)
    for x in ga[:4]: print('  GEOM-A', x)
    for x in gb[:4]: print('  GEOM-B', x)
    return 1 if d or ga or gb else 0
if __name__ == '__main__': sys.exit(main(sys.argv[1:]))
