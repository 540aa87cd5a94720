/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * One step of a walk: from a frame's registers to its caller's. Compiled for BPF and, for tests and
 * for stacks that are unwound in user space, natively; memory is read through READ_STACK, which the
 * includer defines: READ_STACK(memory, into, bytes, address), 0 if it could be read.
 *
 * With the row's rule giving CFA and where the caller's fp is, on x86-64
 *
 *	caller's ip = *(CFA - 8)
 *	caller's sp = CFA
 *	caller's fp = as saved_fp says
 *
 * On arm64 the caller's ip lies above its fp, or in x30: see caller_of().
 */
#ifndef UNWIND_H
#define UNWIND_H

#define LOWEST_USER_ADDRESS 0x1000ULL
#define HIGHEST_USER_ADDRESS 0x00ffffffffffffffULL

/* Offsets of saved registers from sp at the first instruction of a signal trampoline: the
 * sigcontext within struct rt_sigframe (arch/x86/include/asm/sigframe.h, there less the popped
 * return address; arch/arm64/kernel/signal.c). */
#if defined(__TARGET_ARCH_arm64) || defined(__aarch64__)
#define SIGNAL_FP 544
#define SIGNAL_SP 560
#define SIGNAL_IP 568
#define SIGNAL_BX 552
/* Return addresses may be signed, in the bits above those of user space. */
#define RETURN_ADDRESS(word) ((word) & ((1ULL << 48) - 1))
#else
#define SIGNAL_FP 120
#define SIGNAL_SP 160
#define SIGNAL_IP 168
#define SIGNAL_BX 128
#define RETURN_ADDRESS(word) (word)
#endif

/* What a signal trampoline does: mov $15 (rt_sigreturn), %rax; syscall. */
#define SIGRETURN_CODE 0x0f0000000fc0c748ULL
#define SIGRETURN_LAST 0x05
#define SIGRETURN_BYTES 9

/* In place of a caller's frame pointer that is not known. No frame pointer is odd. */
#define FP_LOST 1

enum step {
	STEP_CALLER,	  /* regs are the caller's; ip is a return address */
	STEP_INTERRUPTED, /* regs are those of the code that a signal interrupted */
	STEP_END,	  /* this was the first function */
	STEP_FAULT,	  /* the stack could not be read */
	STEP_NOT_UNDERSTOOD,
	STEP_REGISTER,
	STEP_NO_ROW, /* no rule, and fp is no frame pointer */
};

/* What a caller's frame pointer and its return address are, where they lie side by side. */
struct frame_record {
	__u64 fp;
	__u64 ip;
};

/* By frame pointer: *(fp) is the caller's, *(fp + 8) the return address. A thread's first function
 * has 0. Anything that cannot be a frame above this one is data. */
static __always_inline enum step step_by_frame_pointer(struct unwind_registers *regs, void *memory)
{
	struct frame_record frame;

	if (!regs->fp)
		return STEP_END;
	/* FP_LOST among them. */
	if (regs->fp < regs->sp || (regs->fp & 7))
		return STEP_NO_ROW;
	if (READ_STACK(memory, &frame, sizeof(frame), regs->fp))
		return STEP_FAULT;
	frame.ip = RETURN_ADDRESS(frame.ip);
	if (!frame.ip)
		return frame.fp ? STEP_NO_ROW : STEP_END;
	if (frame.ip < LOWEST_USER_ADDRESS || frame.ip > HIGHEST_USER_ADDRESS)
		return STEP_NO_ROW;
	regs->ip = frame.ip;
	regs->sp = regs->fp + sizeof(frame);
	regs->fp = frame.fp;
	regs->bx = 0;
	return STEP_CALLER;
}

static __always_inline enum step step_out_of_signal(struct unwind_registers *regs, void *memory)
{
	__u64 sp = regs->sp;

	if (READ_STACK(memory, &regs->ip, 8, sp + SIGNAL_IP) ||
	    READ_STACK(memory, &regs->fp, 8, sp + SIGNAL_FP) ||
	    READ_STACK(memory, &regs->bx, 8, sp + SIGNAL_BX) ||
	    READ_STACK(memory, &regs->sp, 8, sp + SIGNAL_SP))
		return STEP_FAULT;
	return STEP_INTERRUPTED;
}

#if defined(__TARGET_ARCH_arm64) || defined(__aarch64__)
/*
 * fp_offset is that of the pair of fp and return address. A function that has saved no fp has put
 * the return address alone there, or, where that is 0, not yet: a leaf has it in x30, which is lost
 * by its call.
 */
static __always_inline enum step caller_of(struct unwind_registers *regs,
					   const struct unwind_rule *rule, __u64 cfa,
					   const __u64 *leaf, __u32 return_register,
					   struct frame_record *frame, void *memory)
{
	__u64 at = cfa;

	frame->fp = regs->fp;
	frame->ip = regs->bx;
	regs->bx = 0;
	switch (SAVED_FP(rule->saved)) {
	case SAVED_FP_SAME:
		if (rule->fp_offset)
			return READ_STACK(memory, &frame->ip, 8, cfa + rule->fp_offset)
				   ? STEP_FAULT
				   : STEP_CALLER;
		return frame->ip ? STEP_CALLER : STEP_REGISTER;
	case SAVED_FP_AT_FP:
		at = regs->fp;
		break;
	case SAVED_FP_AT_SP:
		at = regs->sp;
		break;
	case SAVED_FP_UNDEFINED:
		return STEP_NOT_UNDERSTOOD;
	}
	return READ_STACK(memory, frame, sizeof(*frame), at + rule->fp_offset) ? STEP_FAULT
									       : STEP_CALLER;
}
#else
static __always_inline enum step caller_of(struct unwind_registers *regs,
					   const struct unwind_rule *rule, __u64 cfa,
					   const __u64 *leaf, __u32 return_register,
					   struct frame_record *frame, void *memory)
{
	__u32 saved_fp = SAVED_FP(rule->saved), saved_bx = SAVED_BX(rule->saved);

	if (saved_bx == SAVED_BX_LOST ||
	    (saved_bx != SAVED_BX_SAME && READ_STACK(memory, &regs->bx, 8, cfa - 8 * saved_bx)))
		regs->bx = 0;
	if (saved_fp == SAVED_FP_AT_CFA && rule->fp_offset == -16 &&
	    return_register == LEAF_REGISTERS) {
		/* The usual frame: both words lie side by side. */
		if (READ_STACK(memory, frame, sizeof(*frame), cfa - 16))
			return STEP_FAULT;
	} else {
		frame->fp = regs->fp;
		if (leaf && return_register < LEAF_REGISTERS)
			frame->ip = leaf[return_register & (LEAF_REGISTERS - 1)];
		else if (READ_STACK(memory, &frame->ip, 8, cfa - 8))
			return STEP_FAULT;
		if (saved_fp == SAVED_FP_REGISTER) {
			frame->fp = leaf ? leaf[rule->fp_offset & (LEAF_REGISTERS - 1)] : FP_LOST;
		} else if (saved_fp == SAVED_FP_UNDEFINED) {
			frame->fp = FP_LOST;
		} else if (saved_fp != SAVED_FP_SAME) {
			__u64 at = cfa;

			if (saved_fp == SAVED_FP_AT_FP)
				at = regs->fp; /* where nothing can be read if it is lost */
			else if (saved_fp == SAVED_FP_AT_SP)
				at = regs->sp;
			if (READ_STACK(memory, &frame->fp, 8, at + rule->fp_offset))
				return STEP_FAULT;
		}
	}
	return STEP_CALLER;
}
#endif

/* `leaf` are all registers of the leaf; its caller's too, where assembly keeps its CFA in one that
 * a call may change, knowing that this one does not. NULL for others, which have lost them. */
static __always_inline enum step unwind_step(struct unwind_registers *regs,
					     const struct unwind_rule *rule, const __u64 *leaf,
					     void *memory)
{
	struct frame_record frame;
	enum step step;
	__u32 return_register = LEAF_REGISTERS, how = CFA(rule);
	__u64 cfa;

	if ((how == CFA_FP || how == CFA_DEREF_FP) && regs->fp == FP_LOST)
		return STEP_REGISTER;
	switch (how) {
	case CFA_UNCOVERED:
		return step_by_frame_pointer(regs, memory);
	case CFA_END:
		return STEP_END;
	case CFA_SIGNAL:
		return step_out_of_signal(regs, memory);
	case CFA_SP:
		cfa = regs->sp + rule->offset;
		break;
	case CFA_FP:
		cfa = regs->fp + rule->offset;
		break;
	case CFA_DEREF_SP:
	case CFA_DEREF_FP:
		cfa = (how == CFA_DEREF_SP ? regs->sp : regs->fp) + (__s16)rule->offset;
		if (READ_STACK(memory, &cfa, 8, cfa))
			return STEP_FAULT;
		cfa += rule->offset >> 16;
		break;
	case CFA_DEREF_INDEXED:
		if (!leaf)
			return STEP_REGISTER;
		cfa = regs->sp + 8 * leaf[INDEXED_RULE_REGISTER(rule->offset)] +
		      INDEXED_RULE_ADDED(rule->offset);
		if (READ_STACK(memory, &cfa, 8, cfa))
			return STEP_FAULT;
		cfa += rule->offset >> 16;
		break;
	case CFA_PLT:
		cfa = regs->sp + 8 + ((__s32)(regs->ip & 15) >= rule->offset ? 8 : 0);
		break;
	case CFA_REGISTER:
		if (LEAF_RULE_CFA(rule->offset) == LEAF_BX)
			cfa = regs->bx;
		else
			cfa = leaf ? leaf[LEAF_RULE_CFA(rule->offset)] : 0;
		if (!cfa)
			return STEP_REGISTER;
		return_register = LEAF_RULE_RETURN_ADDRESS(rule->offset);
		cfa += LEAF_RULE_ADDED(rule->offset);
		break;
	default:
		return STEP_NOT_UNDERSTOOD;
	}
	step = caller_of(regs, rule, cfa, leaf, return_register, &frame, memory);
	if (step != STEP_CALLER)
		return step;
	frame.ip = RETURN_ADDRESS(frame.ip);
	if (!frame.ip)
		return STEP_END;
	regs->ip = frame.ip;
	regs->sp = cfa;
	regs->fp = frame.fp;
	return STEP_CALLER;
}

/*
 * The index of the page that holds `offset` of a mapping's table; false outside of the table, where
 * the pages of other files lie.
 */
static __always_inline bool find_page(const struct unwind_mapping *mapping, __u64 offset,
				      __u32 *index)
{
	__u64 page = offset >> 16;

	*index = mapping->first_page + (__u32)page;
	return mapping->has_table == TABLE_READY && page <= mapping->last_page;
}

/*
 * The last row at or before `low` among `n` sorted ones, of which the first begins at 0. `at` is
 * memory of the caller's: what is kept there the verifier does not know, so that it need not follow
 * each of the 2^13 ways through the search.
 */
static __always_inline __u32 find_row(const struct unwind_row *rows, __u32 first, __u32 n,
				      __u16 low, volatile __u32 *at)
{
	*at = 0;
	for (__u32 step = (MAX_ROWS_PER_PAGE + 1) / 2; step; step /= 2) {
		__u32 probe = *at + step;

		if (probe < n && rows[(first + probe) & (ROWS_PER_CHUNK - 1)].low <= low)
			*at = probe;
	}
	return (first + *at) & (ROWS_PER_CHUNK - 1);
}

#endif
