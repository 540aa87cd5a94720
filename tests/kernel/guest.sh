#!/bin/sh
# Runs in the guest as root. All that it finds goes to the console in sections, which
# scripts/test-kernels takes apart and judges: a line `>>> NAME`, output, a line `<<< NAME STATUS`.

# section NAME COMMAND…
section() {
    name=$1
    shift
    # By way of a file: the console is a terminal, and output may lack its last newline.
    "$@" >/tmp/section 2>&1
    status=$?
    echo ">>> $name"
    awk 1 /tmp/section
    echo "<<< $name $status"
}

section kernel uname -r
section help profiler record --help
# Two CPUs, two spinning processes: one with frame pointers, one without.
section record profiler record -F 499 -o /tmp/o.pb.gz -- sh -c '/shares-fp 4 & /shares-nofp 4; wait'
section folded profiler folded /tmp/o.pb.gz
section pprof base64 /tmp/o.pb.gz
# Without frame pointers, and with a libc in between that has none either. As on any machine there is
# a program with that libc already: to build its table takes an emulated CPU 0.2 s, which is longer
# than the stacks of a young process are kept for.
/deep &
other=$!
sleep 1
kill -STOP $other
section tables profiler record --unwind auto -F 499 -o /tmp/d.pb.gz -- /deep
kill -KILL $other
section deep profiler folded /tmp/d.pb.gz
# Time off the CPU, of every kind; the program says itself what is right.
section off-cpu profiler record --off-cpu --wakers --min-block 0 -o /tmp/b.pb.gz -- /blocking 4 /disk
section blocked profiler folded --type off-cpu --tagroot thread_comm /tmp/b.pb.gz
section threads profiler threads /tmp/b.pb.gz
# What programs on a kernel function cost, by two ways to be there.
/attach /probes.bpf.o >/tmp/attached 2>&1 &
attach=$!
until grep -q attached /tmp/attached || ! kill -0 $attach; do sleep 0.1; done
section attached sh -c 'cat /tmp/attached; grep -q ^attached /tmp/attached'
profiler stats -d 60s -o csv --pid $attach >/tmp/stats 2>&1 &
stats=$!
# Its window begins when it polls (7) for signals.
until grep -q '^7 ' /proc/$stats/syscall || ! kill -0 $stats; do sleep 0.1; done
sleep 1
/calls getppid 300000
kill -INT $stats
wait $stats
section stats cat /tmp/stats
kill $attach
# Calls of the kernel's functions and of a program's; how often functions for files are called.
section latency-kernel profiler latency kernel:vfs_read --max-cost 100000 -- /latency reads 3000
section latency-function \
    profiler latency /latency:recurses --max-cost 100000 --slower-than 0 -o /tmp/l.pb.gz -- /latency recursion 100
section latency-stacks profiler folded --sample-index calls --tagroot '' /tmp/l.pb.gz
# The reads begin when the kernel's code is patched: emulated CPUs hang where one runs what another one patches.
profiler counts vfs -d 6s >/tmp/counts 2>&1 &
counts=$!
until grep -q vfs_read /tmp/counts || ! kill -0 $counts; do sleep 0.1; done
/latency reads 300000
wait $counts
section counts cat /tmp/counts
# What each capability is for: README.md's table says it, and /rights-2 and /rights-3 have its sets. Debian's
# kernels begin at 3.
six=bpf,perfmon,sys_ptrace,dac_read_search,checkpoint_restore,syslog
for paranoid in 3 2; do
    echo $paranoid >/proc/sys/kernel/perf_event_paranoid
    # shellcheck disable=SC2046 # one word a set
    section rights-$paranoid \
        env TABLE_SECONDS=1 sh /table.sh /bin/profiler /with_capabilities /spin $(cut -d' ' -f1 /rights-$paranoid)
done
section off-cpu-by-six /with_capabilities 0 $six profiler record --off-cpu -d 1s -o /tmp/s.pb.gz
section off-cpu-by-five /with_capabilities 0 ${six%,syslog} profiler record --off-cpu -d 1s -o /tmp/s.pb.gz
section dmesg sh -c 'dmesg | tail -20'
