/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * The ABI between the BPF program and src/capture/bpf.rs. It is declared here and nowhere else:
 * libbpf-cargo makes the Rust types and constants of it at build time, from BTF.
 */
#ifndef PROFILE_H
#define PROFILE_H

/* One less than a power of two, so that a masked index is in bounds. */
#define MAX_KERNEL_FRAMES 127
#define MAX_USER_FRAMES 127
#define FRAMES_CAPACITY 256 /* a power of two >= both together */

/*
 * How a run of the sampler ended. Every run increments exactly one of these, so that
 *
 *   runs = idle + filtered + taken,   taken = complete + incomplete by reason + lost by reason
 */
enum outcome {
	/* Not samples. */
	OUTCOME_IDLE,	  /* the idle task, not asked for */
	OUTCOME_FILTERED, /* another process, thread or cgroup than asked for */
	/* Counted, with whole stacks. */
	OUTCOME_COMPLETE,
	/* Counted, with stacks that are known not to be whole. */
	OUTCOME_KERNEL_DEPTH,  /* kernel stack deeper than MAX_KERNEL_FRAMES */
	OUTCOME_KERNEL_FAILED, /* the kernel gave no stack of its own */
	OUTCOME_USER_DEPTH,    /* user stack deeper than MAX_USER_FRAMES */
	OUTCOME_USER_CHAIN,    /* frame-pointer chain broken: not ascending, unaligned */
	OUTCOME_USER_FAULT,    /* frame pointer into memory that cannot be read now */
	OUTCOME_USER_UNKNOWN,  /* walked by the kernel, which does not say where it stopped */
	/* Lost. */
	OUTCOME_LOST_COUNTS_FULL, /* no room in the counts map */
	OUTCOME_LOST_COUNTS_BUSY, /* the counts map refused for another reason */
	OUTCOME_MAX,
};

/* What the time of a count was spent on. */
enum kind {
	KIND_ON_CPU,
};

/* Whose samples are taken. */
enum filter {
	FILTER_NONE,
	FILTER_TGID, /* processes in `targets` and the children they fork */
	FILTER_TID,  /* threads in `targets` */
};

/* Samples are counted by thread, by stacks, and by the state of the address space they are in. */
struct counts_key {
	__u32 tgid;
	__u32 tid;
	__u32 kind;	       /* enum kind */
	__u32 generation;      /* changes with exec and with what executable memory is mapped */
	__u64 kernel_stack_id; /* hash of the kernel frames, 0 if there are none */
	__u64 user_stack_id;   /* hash of the user frames and of how their walk ended, or 0 */
};
_Static_assert(sizeof(struct counts_key) == 32, "counts_key has padding");

struct counts_value {
	__u64 samples;
	__u64 time_ns;
	__u32 body_sent; /* 1 once the stack_body of this key is in the ring */
	__u32 padding;
};
_Static_assert(sizeof(struct counts_value) == 24, "counts_value has padding");

/* The frames behind the ids of a key, leaf first. Sent once, cut behind the last frame. */
struct stack_body {
	struct counts_key key;
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u32 outcome; /* enum outcome of the walks */
	__u16 kernel_frames;
	__u16 user_frames;
	__u64 frames[FRAMES_CAPACITY]; /* kernel frames, then user frames */
};
_Static_assert(sizeof(struct stack_body) == 48 + 8 * FRAMES_CAPACITY, "stack_body has padding");

/* What each CPU has for itself. */
struct cpu_state {
	__u64 outcomes[OUTCOME_MAX];
	__u64 bodies_delayed;	/* ring full: the body is sent with a later sample of its key */
	__u64 follow_failed;	/* children that did not fit into `targets` */
	struct stack_body body; /* scratch space of the sampler */
};

#endif
