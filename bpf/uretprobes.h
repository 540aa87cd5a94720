/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * Return addresses that the kernel has replaced. A uretprobe waits for a function's return: at its
 * entry the kernel puts the address of a trampoline where the return address lies, and keeps that
 * in a list of the thread's, innermost first. So where a frame's caller is the trampoline, the list
 * has the true one; the two are matched by where on the stack the address lies.
 */
#ifndef URETPROBES_H
#define URETPROBES_H

#define URETPROBE_TRAMPOLINE_BYTES 64
#define MOST_RESTORED 16 /* in a stack that is sent to user space */

/* The next entry of the thread's list; `walk->uretprobe_sp` is the stack pointer behind its return.
 */
static __always_inline void next_uretprobe(struct walk *walk, struct return_instance *instance)
{
	walk->uretprobe = (__u64)instance;
	walk->uretprobe_sp = instance ? BPF_CORE_READ(instance, stack) + 8 : -1ULL;
}

static __always_inline struct return_instance *next_of(__u64 instance)
{
	return BPF_CORE_READ((struct return_instance *)instance, next);
}

static __always_inline __u64 true_address(__u64 instance)
{
	return BPF_CORE_READ((struct return_instance *)instance, orig_ret_vaddr);
}

static __always_inline __u64 uretprobe_trampoline(struct task_struct *task)
{
	return BPF_CORE_READ(task, mm, uprobes_state.xol_area, vaddr);
}

/* To be called for the registers of the leaf. It may be in the trampoline. */
static __always_inline void begin_uretprobes(struct walk *walk, struct task_struct *task)
{
	struct return_instance *instance;

	walk->uretprobe_sp = -1;
	if (!bpf_core_field_exists(task->utask) || !READ(task, utask))
		return;
	instance = BPF_CORE_READ(task, utask, return_instances);
	if (!instance)
		return;
	next_uretprobe(walk, instance);
	if (walk->regs.ip - uretprobe_trampoline(task) >= URETPROBE_TRAMPOLINE_BYTES)
		return;
	walk->regs.ip = BPF_CORE_READ(instance, orig_ret_vaddr);
	walk->regs.sp = walk->uretprobe_sp;
	walk->is_return_address = 1;
}

/* Those of functions that were left without a return are taken off late. */
static long pass_uretprobe(__u32 i, void *data)
{
	struct walk *walk = *(struct walk **)data;

	if (walk->uretprobe_sp >= walk->regs.sp)
		return 1;
	next_uretprobe(walk, next_of(walk->uretprobe));
	return 0;
}

/* What is left of `restore_return_address` where the list is looked at. */
static __noinline long find_uretprobe(struct walk *walk)
{
	if (!walk)
		return 0;
	bpf_loop(MOST_RESTORED, pass_uretprobe, &walk, 0);
	if (walk->uretprobe_sp != walk->regs.sp ||
	    walk->regs.ip != uretprobe_trampoline(current_task()))
		return 0;
	walk->regs.ip = true_address(walk->uretprobe);
	return 0;
}

/* To be called for a caller's registers in `walk->regs`. */
static __always_inline void restore_return_address(struct walk *walk)
{
	if (walk->regs.sp >= walk->uretprobe_sp)
		find_uretprobe(walk);
}

struct restoration {
	struct stack_dump *dump;
	__u64 start; /* of the copy */
	__u64 trampoline;
	struct return_instance *instance;
};

static long restore_word(__u32 i, void *data)
{
	struct restoration *to = data;
	struct return_instance *instance = to->instance;
	__u64 at, *word;

	if (!instance)
		return 1;
	at = (BPF_CORE_READ(instance, stack) - to->start) & ~7ULL;
	if (at < sizeof(to->dump->stack)) {
		word = (__u64 *)&to->dump->stack[at & (sizeof(to->dump->stack) - 8)];
		if (*word == to->trampoline)
			*word = BPF_CORE_READ(instance, orig_ret_vaddr);
	}
	to->instance = BPF_CORE_READ(instance, next);
	return 0;
}

/* The same in a copy of the stack. */
static __always_inline void restore_return_addresses(struct stack_dump *dump,
						     struct task_struct *task, __u64 start)
{
	struct restoration to = {.dump = dump, .start = start};

	if (!bpf_core_field_exists(task->utask))
		return;
	to.instance = BPF_CORE_READ(task, utask, return_instances);
	if (!to.instance)
		return;
	to.trampoline = uretprobe_trampoline(task);
	bpf_loop(MOST_RESTORED, restore_word, &to, 0);
}

#endif
