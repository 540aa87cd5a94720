// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/* The step function of unwind.h on a stack that was copied: for young processes, and for tests. */
#include <linux/types.h>
#include <stdbool.h>
#include <string.h>

#undef __always_inline
#define __always_inline inline __attribute__((always_inline))

struct copied_stack {
	const __u8 *bytes;
	__u64 start; /* address of the first byte */
	__u64 length;
};

static __always_inline int read_stack(const struct copied_stack *stack, void *into, __u64 bytes,
				      __u64 address)
{
	if (address < stack->start || stack->length < bytes ||
	    address - stack->start > stack->length - bytes)
		return -1;
	memcpy(into, stack->bytes + (address - stack->start), bytes);
	return 0;
}

#define READ_STACK(memory, into, bytes, address) read_stack(memory, into, bytes, address)
#include "profile.h"
#include "unwind.h"

int profiler_unwind_step(struct unwind_registers *regs, const struct unwind_rule *rule,
			 const __u64 *leaf, const struct copied_stack *stack)
{
	return unwind_step(regs, rule, leaf, (void *)stack);
}

unsigned int profiler_find_row(const struct unwind_chunk *chunk, const struct unwind_page *page,
			       __u16 low)
{
	__u32 at;

	return find_row(chunk->rows, page->first, page->rows, low, &at);
}

int profiler_find_page(const struct unwind_mapping *mapping, __u64 offset, __u32 *index)
{
	return find_page(mapping, offset, index);
}
