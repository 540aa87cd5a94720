// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/*
 * How often something is called: system calls by their numbers, or the kernel's functions for
 * files. An object of its own: it shares nothing with the sampler. Each CPU has its own counts, so
 * that CPUs do not wait for each other.
 */
#include <linux/types.h>
#include <stdbool.h>

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#include "kernel.h"
#include "counts.h"

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

const enum counts_limits *abi_counts_limits __attribute__((unused));
const enum vfs *abi_vfs __attribute__((unused));

static __always_inline int count(__u32 what)
{
	__u64 *calls = bpf_map_lookup_elem(&counts, &what);

	if (calls)
		__sync_fetch_and_add(calls, 1);
	return 0;
}

static __always_inline bool is_compat(void)
{
#if defined(__TARGET_ARCH_x86)
	return bpf_get_current_task_btf()->thread_info.status & 2; /* TS_COMPAT */
#else
	return false;
#endif
}

SEC("tp_btf/sys_enter")
int BPF_PROG(count_syscall, struct pt_regs *regs, long number)
{
	if (is_compat())
		return count(COUNTS_32_BIT);
	return count(number >= 0 && number < COUNTS_32_BIT ? number : COUNTS_UNKNOWN);
}

/* By fentry where the kernel has it, by a kprobe where not. */
#define FUNCTION(name, what)                                                                       \
	SEC("fentry/" #name)                                                                       \
	int BPF_PROG(name##_entry)                                                                 \
	{                                                                                          \
		return count(what);                                                                \
	}                                                                                          \
	SEC("kprobe/" #name)                                                                       \
	int name##_kprobe(void *ctx)                                                               \
	{                                                                                          \
		return count(what);                                                                \
	}

FUNCTION(vfs_read, VFS_READ)
FUNCTION(vfs_write, VFS_WRITE)
FUNCTION(vfs_fsync_range, VFS_FSYNC)
FUNCTION(vfs_open, VFS_OPEN)
FUNCTION(vfs_create, VFS_CREATE)

char LICENSE[] SEC("license") = "Dual MIT/GPL";
