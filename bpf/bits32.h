/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * One step of a walk in code for the 32-bit mode of x86 (i386), whose words have four bytes. Its
 * files have tables like others, with the same rules. Where a rule does not say it, the return
 * address lies at CFA - 4; after a signal, CFA_SIGNAL packs into `offset` where sp and ip are, each
 * from sp, and fp_offset is where fp is.
 */
#ifndef BITS32_H
#define BITS32_H

#if defined(__TARGET_ARCH_arm64) || defined(__aarch64__)

static __always_inline int leave_32_bit(struct walk *walk, __u32 how, __u32 saved, __s32 fp_offset,
					__s32 offset)
{
	return STEP_NOT_UNDERSTOOD;
}

static __always_inline bool is_behind_int80(__u64 ip)
{
	return false;
}

#else

#define WORD_32 4
/* `leaf` has registers by the numbers of 64-bit code: where those of eax, ecx, edx, ebx, esp, ebp,
 * esi and edi are. */
#define LEAF_32(number) ((0x54673120U >> (4 * ((number)&7))) & 15)
#define ENDBR32 0xfb1e0ff3

static __always_inline bool read_32(struct walk *walk, __u64 *into, __u64 address)
{
	__u32 word = 0;

	if (READ_STACK(walk, &word, WORD_32, address))
		return false;
	*into = word;
	return true;
}

/* Whether a word of the stack is a return address in code that is known. */
static __always_inline bool is_return_address_32(struct walk *walk, __u64 ip)
{
	__u64 target;

	return what_is_before(ip, &target) == BEFORE_CALL && find_mapping(walk, ip - 1);
}

/* A system call may be its function's last instruction. */
static __always_inline bool is_behind_int80(__u64 ip)
{
	__u16 code = 0;

	return !bpf_probe_read_user(&code, sizeof(code), (const void *)(ip - sizeof(code))) &&
	       code == 0x80cd;
}

/* From code without a row: see leave_frameless() and leave_uncovered(). */
static __always_inline enum step leave_uncovered_32(struct walk *walk, __u32 has_table)
{
	struct unwind_registers *regs = &walk->regs;
	__u64 ip, fp;
	__u32 code = 0;

	walk->chained = 0;
	bpf_probe_read_user(&code, sizeof(code), (const void *)regs->ip);
	if (walk->knows_leaf &&
	    (has_table != TABLE_NONE || code == ENDBR32 || (code & 0xff) == 0x55 ||
	     (code & 0xff) == 0xc3) &&
	    read_32(walk, &ip, regs->sp) && is_return_address_32(walk, ip)) {
		regs->ip = ip;
		regs->sp += WORD_32;
		return STEP_CALLER;
	}
	if (!regs->fp)
		return is_root(walk, regs->ip) ? STEP_END : STEP_NO_ROW;
	if (regs->fp < regs->sp || (regs->fp & (WORD_32 - 1)) ||
	    !read_32(walk, &ip, regs->fp + WORD_32) || !read_32(walk, &fp, regs->fp))
		return STEP_NO_ROW;
	if (!ip && !fp)
		return STEP_END;
	if (!is_return_address_32(walk, ip))
		return STEP_NO_ROW;
	walk->chained = 1;
	regs->ip = ip;
	regs->sp = regs->fp + 2 * WORD_32;
	regs->fp = fp;
	return STEP_CALLER;
}

static __always_inline enum step leave_signal_32(struct walk *walk, __s32 fp_offset, __s32 offset)
{
	__u64 sp = walk->regs.sp;

	if (!read_32(walk, &walk->regs.ip, sp + (offset >> 16)) ||
	    !read_32(walk, &walk->regs.fp, sp + fp_offset) ||
	    !read_32(walk, &walk->regs.sp, sp + (__s16)offset))
		return STEP_FAULT;
	return STEP_INTERRUPTED;
}

/* By a rule, as far as compilers and the C library write them for such code. For CFA_UNCOVERED
 * `offset` is the mapping's has_table. */
__noinline int leave_32_bit(struct walk *walk, __u32 how, __u32 saved, __s32 fp_offset,
			    __s32 offset)
{
	struct unwind_registers *regs;
	__u64 cfa, at;

	if (!walk)
		return STEP_NO_ROW;
	regs = &walk->regs;
	if ((how == CFA_FP || how == CFA_DEREF_FP) && regs->fp == FP_LOST)
		return STEP_REGISTER;
	switch (how) {
	case CFA_UNCOVERED:
		return leave_uncovered_32(walk, offset);
	case CFA_END:
		return STEP_END;
	case CFA_SIGNAL:
		return leave_signal_32(walk, fp_offset, offset);
	case CFA_SP:
		cfa = regs->sp + offset;
		break;
	case CFA_FP:
		cfa = regs->fp + offset;
		break;
	case CFA_DEREF_SP:
	case CFA_DEREF_FP:
		at = (how == CFA_DEREF_SP ? regs->sp : regs->fp) + (__s16)offset;
		if (!read_32(walk, &cfa, at))
			return STEP_FAULT;
		cfa += offset >> 16;
		break;
	case CFA_PLT:
		cfa = regs->sp + WORD_32 + ((__s32)(regs->ip & 15) >= offset ? WORD_32 : 0);
		break;
	case CFA_REGISTER:
		if (!walk->knows_leaf || LEAF_RULE_RETURN_ADDRESS(offset) != LEAF_REGISTERS)
			return STEP_REGISTER;
		cfa = walk->leaf[LEAF_32(LEAF_RULE_CFA(offset))] + LEAF_RULE_ADDED(offset);
		break;
	default:
		return STEP_NOT_UNDERSTOOD;
	}
	at = cfa;
	switch (SAVED_FP(saved)) {
	case SAVED_FP_SAME:
		break;
	case SAVED_FP_AT_FP:
		at = regs->fp;
		if (!read_32(walk, &regs->fp, at + fp_offset))
			return STEP_FAULT;
		break;
	case SAVED_FP_AT_SP:
		at = regs->sp;
		/* fallthrough */
	case SAVED_FP_AT_CFA:
		if (!read_32(walk, &regs->fp, at + fp_offset))
			return STEP_FAULT;
		break;
	default:
		regs->fp = FP_LOST;
	}
	if (!read_32(walk, &regs->ip, cfa - WORD_32))
		return STEP_FAULT;
	regs->sp = cfa;
	return regs->ip ? STEP_CALLER : STEP_END;
}

#endif
#endif
