/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * How the BPF program reads a stack, for unwind.h. Frames lie close together, and reading many
 * bytes of user memory costs hardly more than reading few: so the stack is read in windows.
 */
#ifndef WINDOW_H
#define WINDOW_H

/* Makes the window begin at `address`. Where one would leave the stack's mapping it is not moved.
 */
static __noinline long move_window(struct walk *walk, __u64 address)
{
	if (!walk)
		return -1;
	walk->window_start = address;
	if (!bpf_probe_read_user(walk->window, STACK_WINDOW, (const void *)address))
		return 0;
	walk->window_start = 0; /* where no stack is */
	return -1;
}

static __always_inline long read_stack(struct walk *walk, void *into, __u32 bytes, __u64 address)
{
	__u64 at = address - walk->window_start;

	if (at > STACK_WINDOW - bytes) {
		if (move_window(walk, address))
			return bpf_probe_read_user(into, bytes, (const void *)address);
		at = 0;
	}
	__builtin_memcpy(into, &walk->window[at & (STACK_WINDOW - 1)], bytes);
	return 0;
}

#define READ_STACK(memory, into, bytes, address) read_stack(memory, into, bytes, address)
#endif
