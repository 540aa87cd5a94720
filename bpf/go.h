/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * Go's stacks. Each goroutine has one; the runtime itself and C run on the thread's, the system's.
 * The functions that lead from one to the other are known by name (src/unwind/go.rs), and where the
 * goroutine was left is in its descriptor.
 */
#ifndef GO_H
#define GO_H

/* The beginning of a goroutine's descriptor: `g` in Go's src/runtime/runtime2.go. */
struct goroutine {
	__u64 stack_lo;
	__u64 stack_hi;
	__u64 unused[4];
	__u64 m;  /* its thread */
	__u64 sp; /* where it was left */
	__u64 pc;
	__u64 more[3];
	__u64 fp[2]; /* in the first or the second, by version */
};
#define THREAD_SYSTEM_GOROUTINE 0 /* offsets in `m`: g0, curg */
#define THREAD_GOROUTINE 0xc0
#define CGO_CALL_GOROUTINE 48 /* of asmcgocall's, offsets from sp: before Go 1.22, and since */
#define CGO_CALL_GOROUTINE_1_22 8
#define CGO_CALLBACK_FRAME 40 /* cgocallback's on the goroutine's stack, from its sp */
#define GOROUTINE_REGISTER 14 /* r14 */

/* The thread of the goroutine at `address`, if that is the one that it runs. */
static __always_inline __u64 go_thread(__u64 address)
{
	__u64 m, running;

	if (!read_word(&m, address + __builtin_offsetof(struct goroutine, m)) ||
	    !read_word(&running, m + THREAD_GOROUTINE) || running != address)
		return 0;
	return m;
}

/* Whether two frame pointers are those of one frame, or of it and its copy. */
static __always_inline bool same_caller(__u64 fp, __u64 other)
{
	__u64 ip, other_ip;

	return fp == other ||
	       (read_word(&ip, fp + 8) && read_word(&other_ip, other + 8) && ip == other_ip);
}

/*
 * From the system's stack to the goroutine that called. The register that Go keeps the current
 * goroutine's descriptor in is the leaf's; C may have changed it, so asmcgocall has saved another.
 * What is found is believed if the descriptors point at each other, the system's stack begins where
 * we are, and the goroutine's holds the place where it was left.
 *
 * C that calls Go back, which may call C again, is on the system's stack in several pieces. The
 * descriptors tell of the last, if that; cgocallback's frame lies where the goroutine was left for
 * the piece before, which then has a return address there.
 */
__noinline int find_goroutine(struct walk *walk, __u32 cfa)
{
	struct goroutine goroutine;
	__u64 m = 0, address, left = 0;

	if (!walk)
		return STEP_NOT_UNDERSTOOD;
	if (cfa == CFA_CGO_CALL) {
		if (read_word(&address, walk->regs.sp + CGO_CALL_GOROUTINE))
			m = go_thread(address);
		if (!m && read_word(&address, walk->regs.sp + CGO_CALL_GOROUTINE_1_22))
			m = go_thread(address);
		left = walk->called_back;
		walk->called_back = 0;
	} else {
		read_word(&m,
			  walk->leaf[GOROUTINE_REGISTER] + __builtin_offsetof(struct goroutine, m));
	}
	if (!m || !read_word(&address, m + THREAD_SYSTEM_GOROUTINE) ||
	    bpf_probe_read_user(&goroutine, sizeof(goroutine), (const void *)address) ||
	    goroutine.m != m || (!left && goroutine.sp - walk->regs.sp > 128) ||
	    !read_word(&address, m + THREAD_GOROUTINE))
		return STEP_NOT_UNDERSTOOD;
	/* It was preempted and given back; the thread looks for another. */
	if (cfa == CFA_MORE_STACK && !address)
		return STEP_END;
	if (bpf_probe_read_user(&goroutine, sizeof(goroutine), (const void *)address))
		return STEP_NOT_UNDERSTOOD;
	if (left) {
		goroutine.sp = left;
		goroutine.fp[0] = goroutine.fp[1] = 0;
		if (!read_word(&address, left))
			return STEP_NOT_UNDERSTOOD;
		if (!is_behind_call(address)) {
			goroutine.fp[0] = left;
			if (!read_word(&address, left + 8) || !is_behind_call(address))
				return STEP_NOT_UNDERSTOOD;
		}
	}
	if (goroutine.m != m || goroutine.sp < goroutine.stack_lo ||
	    goroutine.sp >= goroutine.stack_hi)
		return STEP_NOT_UNDERSTOOD;
	walk->regs.ip = goroutine.pc;
	walk->regs.sp = goroutine.sp;
	if (cfa == CFA_MORE_STACK) {
		/* The thread may have found another. The same one's stack may have moved. */
		if (!same_caller(walk->regs.fp, goroutine.fp[0]) &&
		    !same_caller(walk->regs.fp, goroutine.fp[1]))
			return STEP_NOT_UNDERSTOOD;
		return STEP_CALLER;
	}
	/* Since Go 1.24 these functions push their caller's frame pointer before they switch. */
	if (goroutine.fp[0] == goroutine.sp || goroutine.fp[1] == goroutine.sp) {
		if (!read_word(&walk->regs.fp, goroutine.sp))
			return STEP_FAULT;
		walk->regs.sp += 8;
	}
	if (!read_word(&walk->regs.ip, walk->regs.sp))
		return STEP_FAULT;
	walk->regs.sp += 8;
	return STEP_CALLER;
}

/* From the i-th frame, one of these functions. */
static __always_inline enum step leave_go_stack(struct walk *walk, __u32 cfa, __u32 i)
{
	enum step step;

	if (cfa == CFA_OTHER_STACK) {
		walk->called_back = walk->regs.sp + CGO_CALLBACK_FRAME;
		walk->regs.sp = 0; /* which the frame pointer may be below */
		return step_by_frame_pointer(&walk->regs, walk);
	}
	step = find_goroutine(walk, cfa);
	/* Before the switch, or on the system's stack already: it has no frame. */
	if (step == STEP_NOT_UNDERSTOOD && !i && read_word(&walk->regs.ip, walk->regs.sp)) {
		walk->regs.sp += 8;
		step = STEP_CALLER;
	}
	return step;
}

#endif
