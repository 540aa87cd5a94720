// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/*
 * The walk of walk.h on a stack that was copied: for young processes, and for tests. What the BPF
 * program has of the kernel comes from the walk's environment, one in each thread.
 */
#include <linux/types.h>
#include <stdbool.h>
#include <string.h>

#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#define barrier_var(variable) asm volatile("" : "+r"(variable))

#include "profile.h"

struct array {
	const void *entries;
	__u64 length;
	__u64 entry_bytes;
};

struct environment {
	struct array blocks; /* of arrays of chunks */
	struct array pages;
	struct array mappings;
	struct array rules;
	const __u8 *stack;
	__u64 stack_start; /* address of the first byte */
	__u64 stack_bytes;
	__u64 initial_stack;
	/* Of the process's interpreters, as far as they are to be asked. */
	struct array pythons;
	struct array v8s;
	struct unwind_run run;
	__u64 thread_pointer;
	/* Reads code and what interpreters have in memory; not 0 if it cannot. */
	long (*read_code)(void *context, __u8 *into, __u64 bytes, __u64 address);
	void *context;
};

static __thread const struct environment *environment;
static __thread struct array unwind_blocks, unwind_pages, unwind_mappings, unwind_rules;
static __thread struct array pythons, v8s;

static void *bpf_map_lookup_elem(const struct array *array, const __u32 *index)
{
	if (*index >= array->length)
		return NULL;
	return (__u8 *)array->entries + *index * array->entry_bytes;
}

static long read_stack(void *into, __u64 bytes, __u64 address)
{
	__u64 at = address - environment->stack_start;

	if (environment->stack_bytes < bytes || at > environment->stack_bytes - bytes)
		return -1;
	memcpy(into, environment->stack + at, bytes);
	return 0;
}

static long bpf_probe_read_user(void *into, __u32 bytes, const void *address)
{
	if (!read_stack(into, bytes, (__u64)address))
		return 0;
	return environment->read_code(environment->context, into, bytes, (__u64)address);
}

#define READ_STACK(memory, into, bytes, address) ((void)(memory), read_stack(into, bytes, address))

static __u64 initial_stack(void)
{
	return environment->initial_stack;
}

static __u64 thread_pointer(void)
{
	return environment->thread_pointer;
}

static __u64 recall_thread(void)
{
	return 0;
}

static void remember_thread(__u64 thread)
{
	(void)thread;
}

static void bpf_loop(__u32 times, long (*step)(__u32, void *), void *context, __u64 flags)
{
	(void)flags;
	for (__u32 i = 0; i < times; i++) {
		if (step(i, context))
			break;
	}
}

/* The copy has the true ones. */
static void restore_return_address(struct walk *walk)
{
	(void)walk;
}

static const bool doubts_frame_pointers = true;

#include "walk.h"

static void set_environment(const struct environment *around)
{
	environment = around;
	unwind_blocks = around->blocks;
	unwind_pages = around->pages;
	unwind_mappings = around->mappings;
	unwind_rules = around->rules;
	pythons = around->pythons;
	v8s = around->v8s;
}

/* From the registers in `cpu->walk`, for a process with all of the environment's mappings. */
void profiler_walk(const struct environment *around, struct cpu_state *cpu)
{
	struct walk_context context = {.cpu = cpu};
	struct walk *walk = &cpu->walk;

	set_environment(around);
	walk->process.mappings = around->mappings.length;
	begin_walk(walk);
	begin_interpreters(walk, &around->run);
	for (__u32 i = 0; i < FRAMES_CAPACITY - 1; i++) {
		if (walk_frame(i, &context))
			break;
	}
	environment = NULL;
}

/* Fills `cpu->code` with what names a code object of the environment's process; 0 if it cannot be
 * read. */
int profiler_describe(const struct environment *around, struct cpu_state *cpu, __u32 runtime,
		      __u64 code)
{
	int described;

	set_environment(around);
	begin_interpreters(&cpu->walk, &around->run);
	cpu->code.runtime = runtime;
	if (runtime == RUNTIME_V8)
		described = describe_v8_code(cpu, code);
	else
		described = describe_python_code(cpu, code);
	environment = NULL;
	return described;
}

int profiler_find_page(const struct unwind_mapping *mapping, __u64 offset, __u32 *index)
{
	return find_page(mapping, offset, index);
}

unsigned int profiler_find_row(const struct unwind_chunk *chunk, const struct unwind_page *page,
			       __u16 low)
{
	__u32 at;

	return find_row(chunk->rows, page->first, page->rows, low, &at);
}
