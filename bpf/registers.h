/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/* The registers a walk starts from, per architecture. */
#ifndef REGISTERS_H
#define REGISTERS_H

struct registers {
	__u64 ip;
	__u64 sp;
	__u64 fp;
};

/*
 * The context of a perf_event program: the uapi registers, then period and address. The verifier
 * checks accesses by these offsets, so the layout is spelled out and not relocated.
 */
/* The verifier refuses a context pointer that the compiler has added to: load here and now. */
#define LOAD(into, field)                                                                          \
	do {                                                                                       \
		(into) = (field);                                                                  \
		asm volatile("" : "+r"(into));                                                     \
	} while (0)

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
						  struct registers *regs)
{
	LOAD(regs->ip, ctx->rip);
	LOAD(regs->sp, ctx->rsp);
	LOAD(regs->fp, ctx->rbp);
}

static __always_inline void saved_user_registers(struct pt_regs *saved, struct registers *regs)
{
	regs->ip = saved->ip;
	regs->sp = saved->sp;
	regs->fp = saved->bp;
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
						  struct registers *regs)
{
	LOAD(regs->ip, ctx->pc);
	LOAD(regs->sp, ctx->sp);
	LOAD(regs->fp, ctx->regs[29]);
}

static __always_inline void saved_user_registers(struct pt_regs *saved, struct registers *regs)
{
	regs->ip = saved->user_regs.pc;
	regs->sp = saved->user_regs.sp;
	regs->fp = saved->user_regs.regs[29];
}

#endif
#endif
