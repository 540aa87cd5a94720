#!/bin/sh
# Records the same programs with one set of capabilities after the other, and prints what had names:
#     SET OWN OTHER CLOSED DELETED NAMESPACE KERNEL COSTS
# with `yes`, `no`, or a percentage where it is neither; or `SET refused`, and behind it the message.
# Usage: table.sh PROFILER WITH_CAPABILITIES SPIN SET...    as root; SPIN is a static program of its own
# function `busy`; sets as with_capabilities takes them. Needs a shell, awk, mount and unshare: busybox has them.
# TABLE_SECONDS and TABLE_HZ: how each is recorded.
set -eu
profiler=$1 with=$2 spin=$3
shift 3
dir=$(mktemp -d)
running=

end() {
    # shellcheck disable=SC2086 # one word a process
    kill $running 2>/dev/null || true
    wait
    rm -rf "$dir"
}
trap end EXIT

# What is recorded runs as somebody else than the recorder, but for one.
recorder=1001 other=1002
mkdir "$dir/open" "$dir/closed" "$dir/out" "$dir/mount"
chmod 755 "$dir" "$dir/open" "$dir/mount"
chmod 700 "$dir/closed"
chmod 777 "$dir/out"
# Not where others may not go, as in root's home.
cp "$profiler" "$dir/open/profiler"
cp "$with" "$dir/open/with"
for name in own other deleted; do cp "$spin" "$dir/open/s_$name"; done
cp "$spin" "$dir/closed/s_closed"
chmod 755 "$dir/open/"* "$dir/closed/"*
profiler=$dir/open/profiler with=$dir/open/with

start() {
    "$@" >/dev/null 2>&1 &
    running="$running $!"
}
start "$with" $recorder none "$dir/open/s_own" 3600
start "$with" $other none "$dir/open/s_other" 3600
start "$dir/closed/s_closed" 3600
start "$dir/open/s_deleted" 3600
# shellcheck disable=SC2016 # for the shell within
start unshare -m sh -c 'mount -t tmpfs tmpfs "$1" && cp "$2" "$1/s_mounted" && chmod 755 "$1" "$1/s_mounted" &&
    exec "$1/s_mounted" 3600' sh "$dir/mount" "$spin"
# What spends its time in the kernel.
start "$with" $recorder none cat /dev/zero

# A process has its program's name once it has executed it.
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    names=
    # shellcheck disable=SC2086
    for pid in $running; do names="$names $(cat "/proc/$pid/comm" 2>/dev/null)"; done
    [ "$names" != " s_own s_other s_closed s_deleted s_mounted cat" ] || break
    sleep 0.5
done
rm "$dir/open/s_deleted"
pids=$(echo "${running# }" | tr ' ' ,)

# record SET: one row.
record() {
    if ! "$with" $recorder "$1" "$profiler" record -p "$pids" -d "${TABLE_SECONDS:-2}s" -F "${TABLE_HZ:-199}" \
        -o "$dir/out/o.pb.gz" >"$dir/told" 2>&1; then
        echo "$1 refused $(cat "$dir/told")"
        return
    fi
    costs=no
    ! grep -q '^  eBPF ' "$dir/told" || costs=yes
    "$profiler" folded --annotate "$dir/out/o.pb.gz" | awk -v set="$1" -v costs=$costs '
        function say(good, all) {
            if (all < 5) return "none"
            if (good >= 0.95 * all) return "yes"
            return good <= 0.05 * all ? "no" : sprintf("%d%%", 100 * good / all)
        }
        {
            split($0, frames, ";")
            program = frames[1]
            all[program] += $NF
            if (/;_start;.*main;.*busy/) good[program] += $NF
            # Of frames of the kernel only those with a name are marked as such.
            hidden = /kernel symbols hidden/
            if (program == "cat" && (hidden || /_\[k\]/)) {
                kernel += $NF
                if (!hidden) named += $NF
            }
        }
        END {
            split("s_own s_other s_closed s_deleted s_mounted", programs, " ")
            row = set
            for (i = 1; i <= 5; i++) row = row " " say(good[programs[i]], all[programs[i]])
            print row, say(named, kernel), costs
        }'
}

for set; do
    row=$(record "$set")
    # On a machine with other work a program may get no time, and a walk be disturbed.
    case $row in
    *%* | *none\ * | *\ none*)
        case $row in *refused*) ;; *) row=$(record "$set") ;; esac
        ;;
    esac
    echo "$row"
done
