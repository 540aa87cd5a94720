/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/* The registers a walk starts from, per architecture. */
#ifndef REGISTERS_H
#define REGISTERS_H

/* The verifier refuses a context pointer that the compiler has added to: load here and now. */
#define LOAD(into, field)                                                                          \
	do {                                                                                       \
		__u64 loaded = (field);                                                            \
		asm volatile("" : "+r"(loaded));                                                   \
		(into) = loaded;                                                                   \
	} while (0)

/*
 * The context of a perf_event program: the uapi registers, then period and address. The verifier
 * checks accesses by these offsets, so the layout is spelled out and not relocated.
 */
#if defined(__TARGET_ARCH_x86)

struct perf_event_context {
	__u64 r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax;
	__u64 rip, cs, eflags, rsp, ss;
	__u64 sample_period, addr;
};

static __always_inline bool in_user_mode(struct perf_event_context *ctx)
{
	return (ctx->cs & 3) == 3;
}

static __always_inline void interrupted_registers(struct perf_event_context *ctx,
						  struct unwind_registers *regs)
{
	LOAD(regs->ip, ctx->rip);
	LOAD(regs->sp, ctx->rsp);
	LOAD(regs->fp, ctx->rbp);
}

static __always_inline void saved_user_registers(struct pt_regs *saved,
						 struct unwind_registers *regs)
{
	regs->ip = saved->ip;
	regs->sp = saved->sp;
	regs->fp = saved->bp;
}

#define USER32_CS 0x23 /* arch/x86/include/asm/segment.h: code for the 32-bit mode */

static __always_inline bool interrupted_32_bit(struct perf_event_context *ctx)
{
	return ctx->cs == USER32_CS;
}

/* Linux 6.9 has other things beside it in the same word. */
static __always_inline bool saved_32_bit(struct pt_regs *saved)
{
	return (__u16)saved->cs == USER32_CS;
}

/* Where a call's return address lies, of a probe's registers at the function's entry and behind its
 * return. */
#define PLACE_AT_ENTRY(ctx) ((ctx)->sp)
#define PLACE_AT_RETURN(ctx) ((ctx)->sp - 8)

#define TS_COMPAT 2 /* in a system call of a 32-bit program */

static __always_inline bool is_compat(struct task_struct *task)
{
	return task->thread_info.status & TS_COMPAT;
}

static __always_inline long syscall_number(struct pt_regs *regs)
{
	return regs->orig_ax;
}

/* Whether the task has entered the kernel by a system call, whose instruction is behind it. */
static __always_inline bool in_system_call(struct pt_regs *saved)
{
	return saved->orig_ax != -1UL;
}

/* All general registers by their DWARF numbers (System V ABI, figure 3.36). */
static __always_inline void interrupted_leaf(struct perf_event_context *ctx, __u64 *leaf)
{
	LOAD(leaf[0], ctx->rax);
	LOAD(leaf[1], ctx->rdx);
	LOAD(leaf[2], ctx->rcx);
	LOAD(leaf[3], ctx->rbx);
	LOAD(leaf[4], ctx->rsi);
	LOAD(leaf[5], ctx->rdi);
	LOAD(leaf[6], ctx->rbp);
	LOAD(leaf[7], ctx->rsp);
	LOAD(leaf[8], ctx->r8);
	LOAD(leaf[9], ctx->r9);
	LOAD(leaf[10], ctx->r10);
	LOAD(leaf[11], ctx->r11);
	LOAD(leaf[12], ctx->r12);
	LOAD(leaf[13], ctx->r13);
	LOAD(leaf[14], ctx->r14);
	LOAD(leaf[15], ctx->r15);
}

static __always_inline void saved_leaf(struct pt_regs *saved, __u64 *leaf)
{
	leaf[0] = saved->ax;
	leaf[1] = saved->dx;
	leaf[2] = saved->cx;
	leaf[3] = saved->bx;
	leaf[4] = saved->si;
	leaf[5] = saved->di;
	leaf[6] = saved->bp;
	leaf[7] = saved->sp;
	leaf[8] = saved->r8;
	leaf[9] = saved->r9;
	leaf[10] = saved->r10;
	leaf[11] = saved->r11;
	leaf[12] = saved->r12;
	leaf[13] = saved->r13;
	leaf[14] = saved->r14;
	leaf[15] = saved->r15;
}

#elif defined(__TARGET_ARCH_arm64)

struct perf_event_context {
	__u64 regs[31];
	__u64 sp, pc, pstate;
	__u64 sample_period, addr;
};

static __always_inline bool in_user_mode(struct perf_event_context *ctx)
{
	return (ctx->pstate & 0xf) == 0;
}

static __always_inline void interrupted_registers(struct perf_event_context *ctx,
						  struct unwind_registers *regs)
{
	LOAD(regs->ip, ctx->pc);
	LOAD(regs->sp, ctx->sp);
	LOAD(regs->fp, ctx->regs[29]);
}

static __always_inline void saved_user_registers(struct pt_regs *saved,
						 struct unwind_registers *regs)
{
	regs->ip = saved->user_regs.pc;
	regs->sp = saved->user_regs.sp;
	regs->fp = saved->user_regs.regs[29];
}

/* Such processes are not walked. */
static __always_inline bool interrupted_32_bit(struct perf_event_context *ctx)
{
	return false;
}

static __always_inline bool saved_32_bit(struct pt_regs *saved)
{
	return false;
}

#define PLACE_AT_ENTRY(ctx) ((ctx)->user_regs.sp)
#define PLACE_AT_RETURN(ctx) ((ctx)->user_regs.sp)

static __always_inline bool is_compat(struct task_struct *task)
{
	return false;
}

static __always_inline long syscall_number(struct pt_regs *regs)
{
	return regs->syscallno;
}

static __always_inline bool in_system_call(struct pt_regs *saved)
{
	return false;
}

static __always_inline void interrupted_leaf(struct perf_event_context *ctx, __u64 *leaf)
{
	LOAD(leaf[LEAF_BX], ctx->regs[30]);
}

static __always_inline void saved_leaf(struct pt_regs *saved, __u64 *leaf)
{
	leaf[LEAF_BX] = saved->user_regs.regs[30];
}

#endif
#endif
