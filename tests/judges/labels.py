#!/usr/bin/env python3
"""Prints the labels of a pprof file's samples: the sample's first value, and KEY=VALUE for each, tab-separated."""
import sys

import pprofcheck

profile, _ = pprofcheck.load(sys.argv[1])
strings = profile.string_table
for sample in profile.sample:
    keys = [strings[label.key] for label in sample.label]
    assert len(set(keys)) == len(keys), "a key twice: %s" % keys
    values = [strings[label.str] or str(label.num) for label in sample.label]
    print("\t".join([str(sample.value[0])] + ["%s=%s" % pair for pair in zip(keys, values)]))
