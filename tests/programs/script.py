"""What frames of scripts are tested with. Usage: script.py WHAT SECONDS   of CPU time

shares   three functions with 60, 30 and 10 % of the time, below a recursion of eleven
calls    Python that C has called: keys of a sort, reduce, generators, callbacks of re, a class's methods
drops    functions that are made, run once and dropped, each with a name that says what it computes
threads  six threads, each with functions of its own, one of them in coroutines
lines    one function whose three lines have 60, 30 and 10 % of the time
sleeps   a function that waits, called by another
forks    children that live for some milliseconds
blocks   a function that waits for ever
nests    functions of two interpreters in one thread: one is run by the other, and ends before that goes on
"""
import asyncio
import ctypes
import functools
import os
import re
import sys
import threading
import time

SECONDS = float(sys.argv[2])


def spin(rounds):
    x = 0
    for i in range(rounds):
        x = (x * 31 + i) & 0xFFFF
    return x


def until(work, clock=time.process_time):
    end = clock() + SECONDS
    while clock() < end:
        work()


def sixty_percent():
    x = 0
    for i in range(60000):
        x = (x * 31 + i) & 0xFFFF
    return x


def thirty_percent():
    x = 0
    for i in range(30000):
        x = (x * 31 + i) & 0xFFFF
    return x


def ten_percent():
    x = 0
    for i in range(10000):
        x = (x * 31 + i) & 0xFFFF
    return x


def descend(n):
    if n:
        return descend(n - 1)
    return sixty_percent() + thirty_percent() + ten_percent()


def shares():
    until(lambda: descend(10))


class Item:
    def __init__(self, value):
        self.value = value

    def key(self):
        spin(30)
        return self.value

    def __lt__(self, other):
        spin(30)
        return self.value < other.value


def sorts_by_key():
    sorted([Item(i * 7 % 101) for i in range(100)], key=Item.key)


def sorts_by_less():
    sorted([Item(i * 7 % 101) for i in range(30)])


def combine(a, b):
    spin(30)
    return (a + b) & 0xFFFF


def reduces():
    functools.reduce(combine, range(100))


def produce(n):
    for i in range(n):
        spin(30)
        yield i


def delegate(n):
    yield from produce(n)


def consumes():
    sum(delegate(100))


def replacement(match):
    spin(30)
    return match.group().upper()


def replaces():
    re.sub("[a-z]", replacement, "abcdefghij" * 10)


def once():
    sorts_by_key()
    sorts_by_less()
    reduces()
    consumes()
    replaces()


def calls():
    until(once)


def drops():
    number = 0

    def one():
        nonlocal number
        number += 1
        name = f"made_{number % 89}"
        inner = f"inner_{number % 89}"
        source = f"def {name}(spin):\n    def {inner}():\n        return spin(2000)\n    return {inner}()\n"
        space = {}
        exec(compile(source, f"made/{number % 89}", "exec"), space)
        space[name](spin)

    until(one)


def threads():
    def thread_clock():
        return time.clock_gettime(time.CLOCK_THREAD_CPUTIME_ID)

    def run(letter):
        space = {}
        source = f"def outer_{letter}(spin): return inner_{letter}(spin)\ndef inner_{letter}(spin): return spin(5000)\n"
        exec(compile(source, letter, "exec"), space)
        end = thread_clock() + SECONDS / 6
        while thread_clock() < end:
            space[f"outer_{letter}"](spin)

    async def leaf_coroutine():
        spin(5000)
        await asyncio.sleep(0)

    async def outer_coroutine():
        end = thread_clock() + SECONDS / 6
        while thread_clock() < end:
            await leaf_coroutine()

    async def many():
        await asyncio.gather(*(outer_coroutine() for _ in range(4)))

    all_threads = [threading.Thread(target=run, args=(letter,)) for letter in "abcde"]
    all_threads.append(threading.Thread(target=lambda: asyncio.run(many())))
    for thread in all_threads:
        thread.start()
    for thread in all_threads:
        thread.join()


def by_line(n):
    a = [pow(i, 3, 65521) for i in range(6 * n)]  # 60
    b = [pow(i, 3, 65521) for i in range(3 * n)]  # 30
    c = [pow(i, 3, 65521) for i in range(n)]  # 10
    return a, b, c


def lines():
    until(lambda: by_line(1000))


def waits():
    time.sleep(0.02)


def goes_to_wait():
    waits()


def sleeps():
    until(goes_to_wait, time.monotonic)


def waits_for_ever():
    time.sleep(1000)


def blocks():
    waits_for_ever()


def in_the_child():
    end = time.process_time() + 0.005
    while time.process_time() < end:
        spin(200)


def forks():
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        child = os.fork()
        if not child:
            in_the_child()
            os._exit(0)
        os.waitpid(child, 0)


def nests():
    try:
        import _interpreters as interpreters  # since 3.13
    except ImportError:
        import _xxsubinterpreters as interpreters
    inner = interpreters.create()
    # Others that keep a state in this thread and do not run, as programs that embed Python have them.
    api = ctypes.pythonapi
    api.PyThreadState_Get.restype = ctypes.c_void_p
    api.PyThreadState_Swap.argtypes = [ctypes.c_void_p]
    own = api.PyThreadState_Get()
    for _ in range(6):
        api.Py_NewInterpreter()
        api.PyThreadState_Swap(own)
    text = """
def spins_inside(rounds):
    x = 0
    for i in range(rounds):
        x = (x * 31 + i) & 0xFFFF

def goes_inside(n):
    return goes_inside(n - 1) if n else spins_inside(60000)

goes_inside(3)
"""

    def between():
        interpreters.run_string(inner, text)

    def outside():
        between()
        spin(60000)

    # What was seen of the thread before stands beside what is new of it.
    until(lambda: spin(60000))
    until(outside)
    # At its end Python would not have the others.
    os._exit(0)


globals()[sys.argv[1]]()
