/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * User stacks, frame by frame: the mapping that holds the frame's code, the rule for the address,
 * one step. The tables are arrays that user space fills by mapping them; a process whose mappings
 * are not there yet is walked by frame pointers if that was asked for, and otherwise sends its
 * stack.
 *
 * Consecutive frames mostly lie in one mapping, so the last one is tried first.
 */
#ifndef WALK_H
#define WALK_H

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
#include "unwind.h"

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* this and the next three: set by user space */
	__type(key, __u32);
	__type(value, struct unwind_chunk);
} unwind_chunks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct unwind_page);
} unwind_pages SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct unwind_mapping);
} unwind_mappings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, MAX_RULES);
	__type(key, __u32);
	__type(value, struct unwind_rule);
} unwind_rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct unwind_process);
} unwind_processes SEC(".maps");

/* One round of a multiplicative hash; the constant is 2^64 divided by the golden ratio. */
static __always_inline __u64 hash_step(__u64 hash, __u64 word)
{
	hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
	return hash ^ (hash >> 29);
}

/* The mapping of the walk's process that holds `address`; the index of it in `walk->mapping`. */
static __always_inline struct unwind_mapping *find_mapping(struct walk *walk, __u64 address)
{
	struct unwind_mapping *mapping = bpf_map_lookup_elem(&unwind_mappings, &walk->mapping);
	volatile __u32 *at = &walk->at; /* in memory: see find_row */
	__u32 index;

	if (mapping && address >= mapping->start && address < mapping->end)
		return mapping;
	*at = 0;
	for (__u32 step = MAX_MAPPINGS / 2; step; step /= 2) {
		__u32 probe = *at + step;

		if (probe >= walk->process.mappings)
			continue;
		index = walk->process.first_mapping + probe;
		mapping = bpf_map_lookup_elem(&unwind_mappings, &index);
		if (mapping && mapping->start <= address)
			*at = probe;
	}
	index = walk->process.first_mapping + *at;
	mapping = bpf_map_lookup_elem(&unwind_mappings, &index);
	if (!mapping || address < mapping->start || address >= mapping->end)
		return NULL;
	walk->mapping = index;
	return mapping;
}

/* Whether the instruction before `ip` is a call, as far as its bytes tell and can be read. */
static __always_inline bool is_behind_call(__u64 ip)
{
	__u8 code[8];

	if (bpf_probe_read_user(code, sizeof(code), (const void *)(ip - sizeof(code))))
		return true;
	if (code[3] == 0xe8)
		return true;
	for (int i = 1; i < 7; i++) {
		if (i != 3 && code[i] == 0xff && (code[i + 1] & 0x38) == 0x10)
			return true;
	}
	return false;
}

/* The rule for the last frame's code; NULL where no table covers it. */
static __always_inline struct unwind_rule *find_rule(const struct unwind_mapping *mapping,
						     struct walk *walk)
{
	__u64 file_offset = walk->regs.ip - walk->is_return_address + mapping->to_file;
	__u32 index = mapping->first_page + (__u32)(file_offset >> 16);
	struct unwind_page *page = bpf_map_lookup_elem(&unwind_pages, &index);
	struct unwind_chunk *chunk;

	if (!page || !page->rows)
		return NULL;
	index = page->chunk;
	chunk = bpf_map_lookup_elem(&unwind_chunks, &index);
	if (!chunk)
		return NULL;
	index = find_row(chunk->rows, page->first, page->rows, file_offset, &walk->at);
	/* Where an exception is about to land is no return address, though it lies where one was:
	 * another rule begins there, and no call goes before it. */
	if (walk->is_return_address && index + 1 < page->first + page->rows &&
	    chunk->rows[(index + 1) & (ROWS_PER_CHUNK - 1)].low == (__u16)(file_offset + 1) &&
	    !is_behind_call(walk->regs.ip)) {
		walk->is_return_address = 0;
		index++;
	}
	index = chunk->rows[index & (ROWS_PER_CHUNK - 1)].rule;
	return bpf_map_lookup_elem(&unwind_rules, &index);
}

/* Whether the code is that of a signal trampoline. */
static __always_inline bool is_sigreturn(__u64 ip)
{
	__u8 code[16] = {};

	return !bpf_probe_read_user(code, SIGRETURN_BYTES, (const void *)ip) &&
	       *(__u64 *)code == SIGRETURN_CODE && code[8] == SIGRETURN_LAST;
}

static __always_inline enum outcome outcome_of(enum step step)
{
	switch (step) {
	case STEP_END:
		return OUTCOME_COMPLETE;
	case STEP_FAULT:
		return OUTCOME_USER_FAULT;
	case STEP_REGISTER:
		return OUTCOME_USER_REGISTER;
	case STEP_NO_ROW:
		return OUTCOME_USER_NO_ROW;
	default:
		return OUTCOME_USER_NOT_UNDERSTOOD;
	}
}

struct walk_context {
	struct cpu_state *cpu;
};

/* One frame; 1 ends the walk. */
static long walk_frame(__u32 i, void *data)
{
	struct cpu_state *cpu = ((struct walk_context *)data)->cpu;
	struct walk *walk = &cpu->walk;
	struct stack_body *body = &cpu->body;
	const struct unwind_rule *rule = NULL;
	struct unwind_registers regs = walk->regs;
	struct unwind_mapping *mapping;
	bool has_rule, is_trampoline;
	const __u64 *leaf;
	enum step step;
	__u64 frame;

	/* A return address may lie behind its function's last instruction. */
	mapping = find_mapping(walk, regs.ip - walk->is_return_address);
	if (!mapping && i) {
		walk->outcome = OUTCOME_USER_NO_MAPPING;
		return 1;
	}
	if (mapping && mapping->has_table)
		rule = find_rule(mapping, walk);
	has_rule = rule && rule->cfa != CFA_UNCOVERED;
	/* musl does not describe its signal trampoline. */
	is_trampoline = !has_rule && walk->has_rule && is_sigreturn(regs.ip);
	if (is_trampoline)
		walk->is_return_address = 0;
	walk->has_rule = has_rule;
	leaf = i == walk->is_return_address ? walk->leaf : NULL;
	barrier_var(leaf); /* so that what is checked is what is used */
	/* User space takes one byte off all but the leaf's. */
	frame = regs.ip + (i && !walk->is_return_address);
	body->frames[(body->kernel_frames + i) & (FRAMES_CAPACITY - 1)] = frame;
	body->user_frames = i + 1;
	walk->hash = hash_step(walk->hash, frame);
	if (is_trampoline)
		step = step_out_of_signal(&regs, walk);
	else if (has_rule)
		step = unwind_step(&regs, rule, leaf, walk);
	else
		step = step_by_frame_pointer(&regs, walk);
	if (step > STEP_INTERRUPTED) {
		walk->outcome = outcome_of(step);
		return 1;
	}
	/* A caller's frame lies above; only a signal may have been taken on another stack, and only
	 * a leaf may have nothing on its own. */
	if (step == STEP_CALLER && regs.sp < walk->regs.sp + (i != 0)) {
		walk->outcome = OUTCOME_USER_CHAIN;
		return 1;
	}
	walk->regs = regs;
	walk->is_return_address = step == STEP_CALLER;
	return 0;
}

#endif
