#!/usr/bin/env python3
"""Prints a pprof file as lines of tab-separated fields, which a test reads without a parser of its own.

  error TEXT                                         what google/pprof would refuse (rules E of pprofcheck.py)
  warning RULE COUNT                                 what pprofcheck.py finds strange
  comment TEXT
  mapping ID START LIMIT OFFSET PATH BUILD_ID FLAGS  FLAGS: functions, filenames, line numbers, inline frames
  location ID MAPPING ADDRESS [NAME LINE FILE]...    innermost function first
  sample SAMPLES NS PID COMM THREAD_COMM ID...       leaf first; only samples of the CPU's clock
"""
import collections
import gc
import sys

import pprofcheck

gc.disable()  # it reads one file and ends


def main(path):
    profile, gzipped = pprofcheck.load(path)
    errors, warnings, types = pprofcheck.check(profile, gzipped)
    strings = profile.string_table
    functions = {function.id: function for function in profile.function}

    def put(*fields):
        print("\t".join(str(field).replace("\t", " ").replace("\n", " ") for field in fields))

    for error in errors:
        put("error", error)
    for rule, count in collections.Counter(warning.split()[0] for warning in warnings).items():
        put("warning", rule, count)
    if types[:2] != [("samples", "count"), ("cpu", "nanoseconds")]:
        put("error", "sample types are %s" % types)
    for comment in profile.comment:
        put("comment", strings[comment])
    for m in profile.mapping:
        flags = (m.has_functions, m.has_filenames, m.has_line_numbers, m.has_inline_frames)
        put("mapping", m.id, m.memory_start, m.memory_limit, m.file_offset, strings[m.filename],
            strings[m.build_id], "".join(str(int(flag)) for flag in flags))
    for location in profile.location:
        lines = []
        for line in location.line:
            function = functions[line.function_id]
            lines += [strings[function.name], line.line, strings[function.filename]]
        put("location", location.id, location.mapping_id, location.address, *lines)
    for sample in profile.sample:
        labels = {strings[label.key]: strings[label.str] or label.num for label in sample.label}
        values = [pprofcheck.s64(value) for value in sample.value[:2]]
        if not any(values):
            continue
        put("sample", *values, labels.get("pid", 0), labels.get("comm", ""),
            labels.get("thread_comm", ""), *sample.location_id)


main(sys.argv[1])
