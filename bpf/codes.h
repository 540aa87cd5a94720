/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * What interpreters.h has of the kernel, and the names of code objects. They are read when the
 * first stack with the object is sent: it may be gone when user space could look. The ring of names
 * is written before that of stacks, so that who reads them the other way round has the names of all
 * frames that it has.
 */
#ifndef CODES_H
#define CODES_H

/* A thread's PyThreadState, by thread id. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1); /* this and the next two: set by user space */
	__type(key, __u32);
	__type(value, __u64);
} python_threads SEC(".maps");

struct code_key {
	__u64 code;
	__u64 checksum;
	__u32 tgid;
	__u32 runtime;
};

/* Code objects whose names were sent. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct code_key);
	__type(value, __u8);
} known_codes SEC(".maps");

/* Names: struct code_record, cut behind its last byte. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} codes SEC(".maps");

static __always_inline __u64 thread_pointer_of(struct task_struct *task)
{
#if defined(__TARGET_ARCH_x86)
	return BPF_CORE_READ(task, thread.fsbase);
#else
	return 0; /* pthread_t is at another distance from it in each C library */
#endif
}

static __always_inline __u64 thread_pointer(void)
{
	return thread_pointer_of(current_task());
}

static __always_inline __u64 recall_thread(void)
{
	__u32 tid = bpf_get_current_pid_tgid();
	__u64 *known = bpf_map_lookup_elem(&python_threads, &tid);

	return known ? *known : 0;
}

static __always_inline void remember_thread(__u64 thread)
{
	__u32 tid = bpf_get_current_pid_tgid();

	bpf_map_update_elem(&python_threads, &tid, &thread, BPF_ANY);
}

#endif
