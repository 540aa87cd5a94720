#!/usr/bin/env python3
"""Prints the tables of lines of some functions, and what Python itself reads from them.

One function a line: how the table is written (lnotab, linetable, locations), its bytes in hexadecimal, the first line, and
the line of each instruction, 0 for none.
"""
import argparse
import dis
import json
import re
import sys
import types

VERSION = sys.version_info[:2]


def codes(code):
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes(constant)


def lines(code):
    of = [0] * (len(code.co_code) // 2)
    if VERSION >= (3, 10):
        for start, end, line in code.co_lines():
            for at in range(start // 2, end // 2):
                of[at] = line or 0
        return of
    starts = dict(dis.findlinestarts(code))
    line = code.co_firstlineno
    for at in range(len(of)):
        line = starts.get(2 * at, line)
        of[at] = line
    return of


kind = "lnotab" if VERSION < (3, 10) else "linetable" if VERSION < (3, 11) else "locations"
for module in (argparse, dis, json, re, types):
    source = open(module.__file__).read()
    for code in codes(compile(source, module.__file__, "exec")):
        table = code.co_lnotab if VERSION < (3, 10) else code.co_linetable
        print(kind, table.hex() or "-", code.co_firstlineno, ",".join(map(str, lines(code))))
