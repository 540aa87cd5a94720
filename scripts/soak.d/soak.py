"""The machine of scripts/soak: short processes, binaries that are written, run and deleted, libraries that are loaded
and unloaded, compiled code. Looks at the recorder every few seconds and judges what it saw."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time

WARM_UP = 0.4  # of the time: tables of what runs already, buffers, the allocator's own growth
MOST_BYTES_PER_PROCESS = 10.5  # 1 MB in 100,000
MEMORY_LIMIT = 2 << 30

SPIN = r"""
#include <stdlib.h>
#include <time.h>
__attribute__((noinline)) int BUSY(int n) { volatile int x = 0; while (n--) x += n; return x; }
int main(int c, char **v) {
  struct timespec t; int ms = c > 1 ? atoi(v[1]) : 20; double end;
  clock_gettime(CLOCK_MONOTONIC, &t); end = t.tv_sec * 1e3 + t.tv_nsec / 1e6 + ms;
  do { BUSY(10000); clock_gettime(CLOCK_MONOTONIC, &t); } while (t.tv_sec * 1e3 + t.tv_nsec / 1e6 < end);
  return 0; }
"""
LIBRARY = r"""
__attribute__((noinline)) int BUSY(int n) { volatile int x = 0; while (n--) x += n; return x; }
int work(int n) { return BUSY(n) + 1; }
"""
LOADER = r"""
#include <dlfcn.h>
#include <unistd.h>
int main(int c, char **v) {
  for (int i = 0;; i++) {
    void *l = dlopen(v[1 + i % (c - 1)], RTLD_NOW); int (*f)(int) = (int (*)(int))dlsym(l, "work");
    f(1000000); dlclose(l); usleep(5000); } }
"""
JIT = r"""
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
static const unsigned char code[] = {0x55, 0x48, 0x89, 0xe5, 0xb9, 0, 0, 0x10, 0, 0xff, 0xc9, 0x75, 0xfc, 0x5d, 0xc3};
int main(void) {
  for (;;) { char *at = mmap(0, 4096, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); memcpy(at, code, sizeof code);
    for (int i = 0; i < 20; i++) ((void (*)(void))at)(); munmap(at, 4096); usleep(5000); } }
"""


def compile_c(directory, name, text, *flags):
    path = os.path.join(directory, name)
    with open(path + ".c", "w") as source:
        source.write(text)
    subprocess.run(["gcc", "-O1", "-o", path, path + ".c", *flags], check=True)
    return path


def processes_started():
    with open("/proc/stat") as stat:
        return next(int(line.split()[1]) for line in stat if line.startswith("processes"))


def recorder_is(pid):
    with open(f"/proc/{pid}/status") as status:
        rss = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))
    return rss, len(os.listdir(f"/proc/{pid}/fd"))


def slope(points):
    n = len(points)
    x, y = sum(p[0] for p in points) / n, sum(p[1] for p in points) / n
    var = sum((p[0] - x) ** 2 for p in points)
    return sum((p[0] - x) * (p[1] - y) for p in points) / var if var else 0.0


def limit_memory(pid):
    """A cgroup of its own for the recorder, where cgroup v2 can be written."""
    group = f"/sys/fs/cgroup/profiler-soak-{os.getpid()}"
    try:
        os.mkdir(group)
        with open(group + "/memory.max", "w") as limit:
            limit.write(str(MEMORY_LIMIT))
        with open(group + "/cgroup.procs", "w") as procs:
            procs.write(str(pid))
        return group
    except OSError as error:
        print(f"SKIP: the limit of 2 GiB: {error}")
        return None


def churn(directory, spin, number):
    """A new binary: another build id, another size; it is written, run and deleted."""
    path = os.path.join(directory, f"churn{number}")
    with open(spin, "rb") as source, open(path, "wb") as copy:
        copy.write(source.read() + os.urandom(64))
    os.chmod(path, 0o755)
    child = os.posix_spawn(path, [path, "20"], {})
    os.unlink(path)
    os.waitpid(child, 0)


def main():
    profiler, minutes = sys.argv[1], int(sys.argv[2])
    seconds = 60 * minutes
    failures = []
    with tempfile.TemporaryDirectory(prefix="profiler-soak-") as directory:
        spin = compile_c(directory, "spin", SPIN, "-DBUSY=busy")
        names = [f"lib{i}.so" for i in range(8)]
        libraries = [compile_c(directory, name, LIBRARY, "-shared", "-fPIC", f"-DBUSY=in_{i}") for i, name in enumerate(names)]
        loader = compile_c(directory, "loader", LOADER, "-ldl")
        load = [subprocess.Popen([loader, *libraries])]
        if os.uname().machine == "x86_64":
            load.append(subprocess.Popen([compile_c(directory, "jit", JIT)]))
        output, log = os.path.join(directory, "soak.pb.gz"), os.path.join(directory, "log")
        with open(log, "w") as told:
            recorder = subprocess.Popen([profiler, "record", "-d", f"{seconds}s", "-F", "49", "-o", output], stderr=told)
        group = limit_memory(recorder.pid)
        began, first, seen, number, looked = time.time(), processes_started(), [], 0, 0.0
        while recorder.poll() is None:
            for _ in range(20):
                child = os.posix_spawn("/bin/true", ["true"], {})
                os.waitpid(child, 0)
            churn(directory, spin, number)
            number += 1
            now = time.time() - began
            if now - looked >= max(2, seconds / 200) and now < seconds - 2:
                looked = now
                try:
                    seen.append((now, processes_started() - first, *recorder_is(recorder.pid)))
                except (OSError, StopIteration):
                    break
        for process in load:
            process.send_signal(signal.SIGKILL)
            process.wait()
        status = recorder.wait()
        if group:
            os.rmdir(group)
        text = open(log).read()
        print(text)
        if status != 0:
            failures.append(f"exit status {status}")
        sums = re.search(r"taken (\d+) = complete (\d+) \+ incomplete (\d+) \+ lost (\d+)", text)
        if "UNACCOUNTED" in text or not sums or int(sums[1]) != sum(int(n) for n in sums.groups()[1:]):
            failures.append("the samples do not add up")
        late = [look for look in seen if look[0] > WARM_UP * seconds]
        if len(late) < 5:
            failures.append(f"the recorder was looked at {len(late)} times after its warm-up: give it more minutes")
        else:
            per_process = slope([(look[1], look[2]) for look in late])
            half = len(late) // 2
            descriptors = [sum(look[3] for look in part) / len(part) for part in (late[:half], late[half:])]
            print(f"{late[-1][1]} processes, {number} binaries; resident memory {late[0][2] >> 20} to {late[-1][2] >> 20} MiB "
                  f"after warm-up, {per_process:.1f} bytes a process; descriptors {descriptors[0]:.0f}, then {descriptors[1]:.0f}")
            if per_process > MOST_BYTES_PER_PROCESS:
                failures.append(f"memory grows by {per_process:.1f} bytes a process: more than {MOST_BYTES_PER_PROCESS}")
            if descriptors[1] > descriptors[0] * 1.05 + 8:
                failures.append(f"descriptors grow from {descriptors[0]:.0f} to {descriptors[1]:.0f}")
    for failure in failures:
        print("FAIL:", failure)
    sys.exit(1 if failures else 0)


main()
