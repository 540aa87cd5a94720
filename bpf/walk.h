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

/* Steps of 2^n down to 2^m of a binary search. What is in memory the verifier does not know, so
 * that it need not follow each of the ways through the search. */
static __always_inline void search_mappings(struct walk *walk, __u64 address, __u32 largest,
					    __u32 smallest)
{
	volatile __u32 *at = &walk->at;
	struct unwind_mapping *mapping;
	__u32 index;

	for (__u32 step = largest; step >= smallest; step /= 2) {
		__u32 probe = *at + step;

		if (probe >= walk->process.mappings)
			continue;
		index = walk->process.first_mapping + probe;
		mapping = bpf_map_lookup_elem(&unwind_mappings, &index);
		if (mapping && mapping->start <= address)
			*at = probe;
	}
}

/* The mapping of the walk's process that holds `address`; the index of it in `walk->mapping`. */
static __always_inline struct unwind_mapping *find_mapping(struct walk *walk, __u64 address)
{
	struct unwind_mapping *mapping = bpf_map_lookup_elem(&unwind_mappings, &walk->mapping);
	__u32 index;

	if (mapping && address >= mapping->start && address < mapping->end)
		return mapping;
	walk->at = 0;
	if (walk->process.mappings > FEW_MAPPINGS)
		search_mappings(walk, address, MAX_MAPPINGS / 2, FEW_MAPPINGS);
	search_mappings(walk, address, FEW_MAPPINGS / 2, 1);
	index = walk->process.first_mapping + walk->at;
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
	__u64 offset = walk->regs.ip - walk->is_return_address + mapping->to_table;
	struct unwind_chunk *chunk;
	struct unwind_page *page;
	__u32 index;

	if (!find_page(mapping, offset, &index))
		return NULL;
	page = bpf_map_lookup_elem(&unwind_pages, &index);
	if (!page || !page->rows)
		return NULL;
	index = page->chunk;
	chunk = bpf_map_lookup_elem(&unwind_chunks, &index);
	if (!chunk)
		return NULL;
	index = find_row(chunk->rows, page->first, page->rows, offset, &walk->at);
	/* Where an exception is about to land is no return address, though it lies where one was:
	 * another rule begins there, and no call goes before it. */
	if (walk->is_return_address && index + 1 < page->first + page->rows &&
	    chunk->rows[(index + 1) & (ROWS_PER_CHUNK - 1)].low == (__u16)(offset + 1) &&
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

/* The beginning of a goroutine's descriptor: `g` in Go's src/runtime/runtime2.go. */
struct goroutine {
	__u64 stack_lo;
	__u64 stack_hi;
	__u64 unused[4];
	__u64 m;  /* its thread */
	__u64 sp; /* where it was left */
	__u64 pc;
	__u64 more[3];
	__u64 fp[2]; /* in the first or the second, by version */
};
#define THREAD_SYSTEM_GOROUTINE 0 /* offsets in `m`: g0, curg */
#define THREAD_GOROUTINE 0xc0
#define CGO_CALL_GOROUTINE 48 /* of asmcgocall's, offsets from sp: before Go 1.22, and since */
#define CGO_CALL_GOROUTINE_1_22 8
#define MAX_SWITCHES 8

static __always_inline bool read_word(__u64 *into, __u64 address)
{
	return !bpf_probe_read_user(into, sizeof(*into), (const void *)address);
}

/* The thread of the goroutine at `address`, if that is the one that it runs. */
static __always_inline __u64 go_thread(__u64 address)
{
	__u64 m, running;

	if (!read_word(&m, address + __builtin_offsetof(struct goroutine, m)) ||
	    !read_word(&running, m + THREAD_GOROUTINE) || running != address)
		return 0;
	return m;
}

/* Whether two frame pointers are those of one frame, or of it and its copy. */
static __always_inline bool same_caller(__u64 fp, __u64 other)
{
	__u64 ip, other_ip;

	return fp == other ||
	       (read_word(&ip, fp + 8) && read_word(&other_ip, other + 8) && ip == other_ip);
}

/*
 * From the system's stack, where Go's runtime and C run, to the goroutine that called them. The
 * register that Go keeps the current goroutine's descriptor in is the leaf's; C may have changed
 * it, so asmcgocall has saved another. What is found is believed if the descriptors point at each
 * other, the system's stack begins where we are, and the goroutine's holds the place where it was
 * left.
 */
static __noinline int switch_stack(struct cpu_state *cpu, __u32 cfa)
{
	struct walk *walk = &cpu->walk;
	struct goroutine goroutine;
	__u64 m = 0, address;

	if (cfa == CFA_CGO_CALL) {
		if (read_word(&address, walk->regs.sp + CGO_CALL_GOROUTINE))
			m = go_thread(address);
		if (!m && read_word(&address, walk->regs.sp + CGO_CALL_GOROUTINE_1_22))
			m = go_thread(address);
	} else {
		read_word(&m, walk->leaf[14] + __builtin_offsetof(struct goroutine, m));
	}
	if (!m || !read_word(&address, m + THREAD_SYSTEM_GOROUTINE) ||
	    bpf_probe_read_user(&goroutine, sizeof(goroutine), (const void *)address) ||
	    goroutine.m != m || goroutine.sp - walk->regs.sp > 128 ||
	    !read_word(&address, m + THREAD_GOROUTINE))
		return STEP_NOT_UNDERSTOOD;
	/* It was preempted and given back; the thread looks for another. */
	if (cfa == CFA_MORE_STACK && !address)
		return STEP_END;
	if (bpf_probe_read_user(&goroutine, sizeof(goroutine), (const void *)address) ||
	    goroutine.m != m || goroutine.sp < goroutine.stack_lo ||
	    goroutine.sp >= goroutine.stack_hi)
		return STEP_NOT_UNDERSTOOD;
	walk->regs.ip = goroutine.pc;
	walk->regs.sp = goroutine.sp;
	if (cfa == CFA_MORE_STACK) {
		/* The thread may have found another. The same one's stack may have moved. */
		if (!same_caller(walk->regs.fp, goroutine.fp[0]) &&
		    !same_caller(walk->regs.fp, goroutine.fp[1]))
			return STEP_NOT_UNDERSTOOD;
	} else {
		/* Go 1.24 makes a frame before, whose frame pointer was kept; 1.19 does not. */
		if (goroutine.fp[0] == goroutine.sp || goroutine.fp[1] == goroutine.sp) {
			if (!read_word(&walk->regs.fp, walk->regs.sp))
				return STEP_FAULT;
			walk->regs.sp += 8;
		}
		if (!read_word(&walk->regs.ip, walk->regs.sp))
			return STEP_FAULT;
		walk->regs.sp += 8;
	}
	return STEP_CALLER;
}

/* A frame whose caller may be on another stack; 1 ends the walk. */
static __always_inline long walk_switch(struct cpu_state *cpu, __u32 cfa, __u32 i)
{
	struct walk *walk = &cpu->walk;
	enum step step;

	if (walk->switches++ >= MAX_SWITCHES) {
		walk->outcome = OUTCOME_USER_CHAIN;
		return 1;
	}
	if (cfa == CFA_OTHER_STACK) {
		walk->regs.sp = 0; /* which the frame pointer may be below */
		step = step_by_frame_pointer(&walk->regs, walk);
	} else {
		step = switch_stack(cpu, cfa);
		/* Before the switch, or on the system's stack already: it has no frame. */
		if (step == STEP_NOT_UNDERSTOOD && !i && read_word(&walk->regs.ip, walk->regs.sp)) {
			walk->regs.sp += 8;
			step = STEP_CALLER;
		}
	}
	walk->is_return_address = 1;
	walk->outcome = step == STEP_CALLER ? walk->outcome : outcome_of(step);
	return step != STEP_CALLER;
}

/*
 * A leaf that keeps frame pointers, but has not made its frame yet or has it no more: before or
 * behind its push %rbp, or at its ret. By frame pointer its caller would be missing.
 */
static __always_inline bool leave_frameless(struct unwind_registers *regs)
{
	__u32 code = 0;
	__u64 sp = regs->sp, fp = regs->fp;

	if (bpf_probe_read_user(&code, sizeof(code), (const void *)regs->ip))
		return false;
	if ((code & 0xffffff) == 0xe58948) { /* mov %rsp,%rbp */
		if (!read_word(&fp, sp))
			return false;
		sp += 8;
	} else if ((code & 0xff) != 0x55 && (code & 0xff) != 0xc3 && (code & 0xff) != 0xc2) {
		return false;
	}
	if (!read_word(&regs->ip, sp))
		return false;
	regs->sp = sp + 8;
	regs->fp = fp;
	return true;
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
	/* A caller is none where no code is known, but a leaf runs there. */
	if (!mapping || mapping->has_table == TABLE_SOON) {
		walk->outcome = mapping ? OUTCOME_USER_NO_TABLE : OUTCOME_USER_NO_MAPPING;
		body->frames[(body->kernel_frames + i) & (FRAMES_CAPACITY - 1)] = regs.ip;
		body->user_frames = i + 1;
		walk->hash = hash_step(walk->hash, regs.ip);
		return 1;
	}
	rule = find_rule(mapping, walk);
	has_rule = rule && rule->cfa != CFA_UNCOVERED;
	/* musl does not describe its signal trampoline. */
	is_trampoline = !has_rule && walk->has_rule && is_sigreturn(regs.ip);
	if (is_trampoline)
		walk->is_return_address = 0;
	walk->has_rule = has_rule;
	leaf = i <= walk->is_return_address ? walk->leaf : NULL;
	barrier_var(leaf); /* so that what is checked is what is used */
	/* User space takes one byte off all but the leaf's. */
	frame = regs.ip + (i && !walk->is_return_address);
	body->frames[(body->kernel_frames + i) & (FRAMES_CAPACITY - 1)] = frame;
	body->user_frames = i + 1;
	walk->hash = hash_step(walk->hash, frame);
	if (has_rule && rule->cfa >= CFA_SYSTEM_STACK)
		return walk_switch(cpu, rule->cfa, i);
	if (has_rule && rule->cfa == CFA_SIGNAL) /* nor is a trampoline called */
		body->frames[(body->kernel_frames + i) & (FRAMES_CAPACITY - 1)] = regs.ip + 1;
	if (is_trampoline)
		step = step_out_of_signal(&regs, walk);
	else if (has_rule)
		step = unwind_step(&regs, rule, leaf, walk);
	else if (!i && leave_frameless(&regs))
		step = STEP_CALLER;
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
