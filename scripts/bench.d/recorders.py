"""The recorders that are measured: how each is started, known to sample, and stopped."""

import contextlib
import ctypes
import json
import os
import platform
import signal
import subprocess
import time

PROFILER = os.environ["PROFILER"]
DIR = os.environ["BENCH_DIR"]
OUTPUT = f"{DIR}/recording"
LOG = f"{DIR}/recorder.log"

# Sampled system-wide, except samply, which can only follow what it starts.
COMMANDS = {
    "profiler": lambda hz: [PROFILER, "record", "-a", "-F", str(hz), "-o", OUTPUT],
    "profiler fp": lambda hz: [PROFILER, "record", "-a", "-F", str(hz), "-o", OUTPUT, "--unwind", "fp"],
    "perf -g": lambda hz: ["perf", "record", "-F", str(hz), "-a", "-g", "-o", OUTPUT],
    "perf dwarf": lambda hz: ["perf", "record", "-F", str(hz), "-a", "--call-graph", "dwarf", "-o", OUTPUT],
    "lightswitch": lambda hz: with_tracefs(lightswitch(hz)),
    "bcc": lambda hz: ["profile-bpfcc", "-F", str(hz), "-af"],
    "bpftrace": lambda hz: ["bpftrace", "-e", f"profile:hz:{hz} {{ @[kstack, ustack, comm] = count(); }}"],
}


# The same of blocked time; the number is how long a block has to be, in microseconds.
OFF_CPU_COMMANDS = {
    "profiler, 1 ms": lambda _: [PROFILER, "record", "--off-cpu-only", "-o", OUTPUT],
    "profiler, 1 ms, --no-bpf-stats": lambda _: [PROFILER, "record", "--off-cpu-only", "--no-bpf-stats", "-o", OUTPUT],
    "profiler, all": lambda _: [PROFILER, "record", "--off-cpu-only", "--min-block", "0", "-o", OUTPUT],
    "offcputime, 1 ms": lambda _: ["offcputime", "-m", "1000"],
    "offcputime, all": lambda _: ["offcputime", "-m", "1"],
    "perf, all": lambda _: with_tracefs(["perf", "record", "-e", "sched:sched_switch", "-a", "-g", "-o", OUTPUT]),
    "bpftrace, all": lambda _: with_tracefs(["bpftrace", "-e", """
        tracepoint:sched:sched_switch {
            @start[args->prev_pid] = nsecs;
            if (@start[args->next_pid]) {
                @[args->next_comm, kstack, ustack] = sum(nsecs - @start[args->next_pid]);
                delete(@start[args->next_pid]);
            }
        }"""]),
}


def with_tracefs(command):
    """A command that finds tracefs mounted, and a list of modules if it asks for one."""
    return ["unshare", "--mount", "sh", "-c",
            "[ -e /sys/kernel/tracing/events ] || mount -t tracefs tracefs /sys/kernel/tracing || exit; "
            "mount -t debugfs debugfs /sys/kernel/debug; "
            '[ -e /proc/modules ] || export LD_PRELOAD="$0"; exec "$@"', f"{DIR}/no_modules.so", *command]


def lightswitch(hz):
    """It refuses to start without tracefs, and sees nothing without /proc/modules."""
    return ["lightswitch", "--sample-freq", str(hz), "--profile-format", "pprof",
            "--profile-path", os.path.dirname(OUTPUT), "--profile-name", os.path.basename(OUTPUT)]


def samply(hz, command):
    """A command under samply. Without hardware counters it takes the kernel's answer for a want of
    rights, and ends rather than use the clock, unless it reads that there can be none."""
    allowed = f"{DIR}/perf_event_paranoid"
    with open(allowed, "w") as file:
        file.write("1\n")
    return ["unshare", "--mount", "sh", "-c",
            'mount --bind "$0" /proc/sys/kernel/perf_event_paranoid && exec "$@"', allowed,
            "samply", "record", "--save-only", "-r", str(hz), "-o", OUTPUT, "--", *command]



class Recorder:
    """A recorder that samples now. After the block: its text, rusage and seconds to stop."""

    def __init__(self, name, hz):
        self.log = open(LOG, "w+")
        # Standard output is the recording of bcc and bpftrace.
        command = (COMMANDS.get(name) or OFF_CPU_COMMANDS[name])(hz)
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                        stdout=open(OUTPUT + ".out", "w"), stderr=self.log)

    def wait_until_it_samples(self):
        fds = f"/proc/{self.process.pid}/fd"
        for _ in range(300):
            time.sleep(0.1)
            if self.process.poll() is not None:
                self.fail("ended at once")
            for fd in os.listdir(fds):
                with contextlib.suppress(FileNotFoundError):
                    link = os.readlink(f"{fds}/{fd}")
                    if "perf_event" in link or "bpf_link" in link or "bpf-prog" in link:
                        # Some open a few events before they start.
                        time.sleep(1)
                        return
        self.process.kill()
        self.fail("opened no event and loaded no program within 30 s")

    def stop(self):
        self.cpu_before_stop_s = cpu_s(self.process.pid)
        self.peak_before_stop = peak_bytes(self.process.pid)
        start = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        _, status, self.rusage = os.wait4(self.process.pid, 0)
        self.stop_s = time.monotonic() - start
        self.process.returncode = os.waitstatus_to_exitcode(status)
        self.log.seek(0)
        self.text = self.log.read()
        if self.process.returncode not in (0, -signal.SIGINT):
            self.fail(f"ended with {self.process.returncode}")

    def fail(self, what):
        self.log.seek(0)
        raise SystemExit(f"bench: {' '.join(self.process.args)} {what}: {self.log.read()}")


@contextlib.contextmanager
def recording(name, hz):
    """Runs the block while a recorder samples the machine."""
    recorder = Recorder(name, hz)
    try:
        recorder.wait_until_it_samples()
        yield recorder
        recorder.stop()
    finally:
        if recorder.process.returncode is None:
            recorder.process.kill()


@contextlib.contextmanager
def running(command, **options):
    """Runs the block beside a command, of which nothing is left afterwards."""
    process = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options)
    try:
        yield process
    finally:
        kill_group(process)
        process.wait()


def kill_group(process):
    """Kills a process that was started in a session of its own, and all it started in there."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def cpu_s(pid):
    """CPU seconds of a process, its threads included, its children not."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_bytes(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


def with_bpf_statistics(section):
    """Has the kernel time BPF programs while the section runs, and not if this process ends: that is
    BPF_ENABLE_STATS, whose descriptor is the switch. No setting of the machine changes."""
    def run():
        numbers = {"x86_64": 321, "aarch64": 280}
        attributes = (ctypes.c_uint32 * 32)()
        libc = ctypes.CDLL(None, use_errno=True)
        switch = libc.syscall(numbers[platform.machine()], 32, attributes, ctypes.sizeof(attributes))
        if switch < 0:
            raise SystemExit(f"bench: failed to enable BPF statistics: {os.strerror(ctypes.get_errno())}")
        try:
            return section()
        finally:
            os.close(switch)
    return run


def all_programs():
    """Name, run time in nanoseconds and runs of each program in the kernel, by id."""
    programs = json.loads(subprocess.check_output(["bpftool", "-j", "prog", "show"]))
    return {program["id"]: (program.get("name"), program.get("run_time_ns", 0), program.get("run_cnt", 0),
                            program["type"]) for program in programs}


def sampling_programs():
    """Run time in nanoseconds and runs of each perf_event program in the kernel, by id."""
    return {id: (time_ns, runs) for id, (_, time_ns, runs, type) in all_programs().items() if type == "perf_event"}
