/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * User stacks by frame pointers.
 *
 * With frame pointers, each frame holds two words at fp: the caller's fp and the return address.
 * The ABI zeroes fp in a thread's first function, so fp == 0 is the one sign of a whole stack.
 * Code built without frame pointers uses the register for data; the walk then stops at the first
 * value that cannot be a frame above the last one, and says so.
 */
#ifndef WALK_H
#define WALK_H

#define HIGHEST_USER_ADDRESS 0x00ffffffffffffffULL
#define LOWEST_USER_ADDRESS 0x1000ULL

/* One round of a multiplicative hash; the constant is 2^64 divided by the golden ratio. */
static __always_inline __u64 hash_step(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ (hash >> 29);
}

/*
 * Appends the frames of a user stack to body->frames behind the kernel's, sets user_frames and
 * user_stack_id, and says how it ended.
 */
static __always_inline enum outcome walk_user(struct stack_body *body, const struct registers *regs)
{
	struct {
		__u64 fp;
		__u64 return_address;
	} frame;
	__u32 at = body->kernel_frames;
	__u64 sp = regs->sp, fp = regs->fp;
	__u64 hash = hash_step(1, regs->ip);
	enum outcome outcome = OUTCOME_USER_DEPTH;
	__u32 n = 1;

	body->frames[at & (FRAMES_CAPACITY - 1)] = regs->ip;
	for (int i = 1; i < MAX_USER_FRAMES; i++) {
		if (!fp) {
			outcome = OUTCOME_COMPLETE;
			break;
		}
		/* At a function's first instructions fp may equal sp, never lie below it. */
		if (fp < sp || (fp & 7)) {
			outcome = OUTCOME_USER_CHAIN;
			break;
		}
		if (bpf_probe_read_user(&frame, sizeof(frame), (void *)fp)) {
			outcome = OUTCOME_USER_FAULT;
			break;
		}
		if (!frame.return_address) {
			outcome = frame.fp ? OUTCOME_USER_CHAIN : OUTCOME_COMPLETE;
			break;
		}
		if (frame.return_address < LOWEST_USER_ADDRESS ||
		    frame.return_address > HIGHEST_USER_ADDRESS) {
			outcome = OUTCOME_USER_CHAIN;
			break;
		}
		body->frames[(at + i) & (FRAMES_CAPACITY - 1)] = frame.return_address;
		hash = hash_step(hash, frame.return_address);
		n++;
		sp = fp + sizeof(frame);
		fp = frame.fp;
	}
	body->user_frames = n;
	body->key.user_stack_id = hash_step(hash, outcome);
	return outcome;
}

#endif
