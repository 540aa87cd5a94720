/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * User stacks, frame by frame: the mapping that holds the frame's code, the rule for the address,
 * one step. A process whose mappings are not known yet is walked by frame pointers if that was
 * asked for, and otherwise sends its stack.
 *
 * Compiled for BPF and natively, for stacks that were sent and for tests. The includer has
 *
 *	bpf_map_lookup_elem, bpf_probe_read_user    as in BPF
 *	unwind_mappings and the other tables        as in tables.h
 *	READ_STACK                                  see unwind.h
 *	initial_stack()                             where the process's first function began
 *	what interpreters.h wants
 *	restore_return_address(walk)                see uretprobes.h
 *	doubts_frame_pointers                       whether keeps_frame_pointer() is asked
 *
 * Functions that are neither static nor inlined the kernel verifies once, and not with each caller.
 *
 * What is found by a table is right if the table is. Without one there are guesses, and each asks
 * for proof: a return address lies in code and behind a call, an end is one that the code around it
 * shows.
 *
 * Consecutive frames mostly lie in one mapping, so the last one is tried first.
 */
#ifndef WALK_H
#define WALK_H

#include "unwind.h"
#include "code.h"
#include "go.h"
#include "interpreters.h"

#define MAX_SWITCHES 8 /* between stacks, in one walk */
#define LONGEST_LEAF (1 << 16)
/* What the functions before main() have of the stack, where no table describes them. */
#define INITIAL_FRAME 128
#define INITIAL_WORDS (INITIAL_FRAME / 8)
#define FRAME_RECORD 16 /* fp and return address */
#define INITIAL_LEAF 16 /* the first of them itself, before it calls */

/* Steps of 2^n down to 2^m of a binary search. What is in memory the verifier does not know, so
 * that it need not follow each of the ways through the search. */
static __always_inline void search_mappings(struct walk *walk, __u64 address, __u32 largest,
					    __u32 smallest)
{
	volatile __u32 *at = &walk->at;
	struct unwind_mapping *mapping;
	__u32 index;

	/* The verifier of Linux 6.1 takes no loop whose way back is not a jump. */
#ifdef __clang__
#pragma clang loop unroll(full)
#endif
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
	__u32 index = walk->mapping; /* on the stack: not every kernel takes a key from anywhere */
	struct unwind_mapping *mapping = bpf_map_lookup_elem(&unwind_mappings, &index);

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

#define NO_RULE (~0U)

/* The number of the rule for the last frame's code; NO_RULE where no table covers it. */
__noinline int find_rule(struct walk *walk, const struct unwind_mapping *mapping)
{
	struct unwind_chunk *chunk;
	struct unwind_page *page;
	void *block;
	__u64 offset;
	__u32 index;

	if (!walk || !mapping)
		return NO_RULE;
	offset = walk->regs.ip - walk->is_return_address + mapping->to_table;
	if (!find_page(mapping, offset, &index))
		return NO_RULE;
	page = bpf_map_lookup_elem(&unwind_pages, &index);
	if (!page || !page->rows)
		return NO_RULE;
	index = page->block;
	block = bpf_map_lookup_elem(&unwind_blocks, &index);
	if (!block)
		return NO_RULE;
	index = page->chunk;
	chunk = bpf_map_lookup_elem(block, &index);
	if (!chunk)
		return NO_RULE;
	index = find_row(chunk->rows, page->first, page->rows, offset, &walk->at);
	/* The runtime sets the instruction pointer of a frame to a landing pad when it handles an
	 * exception. That is the pad's first instruction, and not the one behind a call: another
	 * rule begins there, and no call goes before it. */
	if (walk->is_return_address && index + 1 < page->first + page->rows &&
	    chunk->rows[(index + 1) & (ROWS_PER_CHUNK - 1)].low == (__u16)(offset + 1) &&
	    !is_behind_call(walk->regs.ip)) {
		walk->is_return_address = 0;
		index++;
	}
	return chunk->rows[index & (ROWS_PER_CHUNK - 1)].rule;
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

/* Whether the word that lies where a return address would is one. A signal handler's is not behind
 * a call. Code that cannot be read now has to be known. */
static __always_inline bool is_return_address(struct walk *walk, __u64 ip)
{
	__u64 target;

	switch (what_is_before(ip, &target)) {
	case BEFORE_CALL:
		return true;
	case BEFORE_OTHER:
		return is_sigreturn(ip);
	default:
		return find_mapping(walk, ip - 1);
	}
}

#if defined(__TARGET_ARCH_arm64) || defined(__aarch64__)

/* By frame pointer its caller is not missing: that is in a register, which no rule gives here. */
static __always_inline bool leave_frameless(struct walk *walk, __u32 has_table)
{
	return false;
}

static __always_inline bool leave_trampoline(struct walk *walk)
{
	return false;
}

#else

#define POP_WORD_AND_RETURN 0xc308c48348ULL /* add $8,%rsp; ret */

/*
 * Code that keeps nothing on the stack but the word that aligns it, and has only to return: what
 * `python -X perf` makes for each function, up to 3.13.
 */
static __always_inline bool leave_trampoline(struct walk *walk)
{
	const struct unwind_registers frame = walk->regs;
	__u64 code = 0;

	if (bpf_probe_read_user(&code, 5, (const void *)frame.ip) || code != POP_WORD_AND_RETURN ||
	    READ_STACK(walk, &walk->regs.ip, 8, frame.sp + 8))
		return false;
	walk->regs.sp = frame.sp + 16;
	restore_return_address(walk);
	if (is_return_address(walk, walk->regs.ip))
		return true;
	walk->regs = frame;
	return false;
}

/*
 * A leaf without a frame of its own: its return address is at the stack pointer. By frame pointer
 * its caller would be missing.
 *
 * Code in a file that has no row, though others there may have, is written by hand: such loops
 * mostly have no frame. Elsewhere code keeps frame pointers, if anything, and the word at the stack
 * pointer may be an old return address in a variable that is not set yet. So there the instruction
 * has to show that there is no frame, or the call that it is this function's.
 */
static __always_inline bool leave_frameless(struct walk *walk, __u32 has_table)
{
	const struct unwind_registers leaf = walk->regs;
	bool is_shown = has_table != TABLE_NONE;
	__u64 sp = leaf.sp, fp = leaf.fp, target;
	enum before before;
	__u32 code = 0;

	bpf_probe_read_user(&code, sizeof(code), (const void *)leaf.ip);
	if ((code & 0xffffff) == 0xe58948) { /* mov %rsp,%rbp behind push %rbp */
		if (READ_STACK(walk, &fp, 8, sp))
			return false;
		sp += 8;
		is_shown = true;
	} else if ((code & 0xff) == 0x55 || (code & 0xff) == 0xc3 || (code & 0xff) == 0xc2 ||
		   code == 0xfa1e0ff3) { /* push %rbp; ret; ret $…; endbr64 */
		is_shown = true;
	}
	if (READ_STACK(walk, &walk->regs.ip, 8, sp))
		return false;
	walk->regs.sp = sp + 8;
	restore_return_address(walk);
	before = what_is_before(walk->regs.ip, &target);
	if (target && target <= leaf.ip && leaf.ip - target < LONGEST_LEAF)
		is_shown = true;
	if (is_shown && (before == BEFORE_CALL || is_sigreturn(walk->regs.ip)) &&
	    find_mapping(walk, walk->regs.ip - 1)) {
		walk->regs.fp = fp;
		return true;
	}
	walk->regs = leaf;
	return false;
}

#endif

/*
 * From the i-th frame, whose code no row covers. A frame pointer that leads to a return address is
 * followed: see keeps_frame_pointer().
 */
__noinline int leave_uncovered(struct walk *walk, __u32 i, __u32 has_table)
{
	struct unwind_registers frame;
	bool is_exact, was_chained;
	enum step step;

	if (!walk)
		return STEP_NO_ROW;
	was_chained = walk->chained;
	walk->chained = 0;
	/* A signal may have interrupted a leaf. */
	is_exact = !i || !walk->is_return_address;
	if (leave_trampoline(walk) || (is_exact && leave_frameless(walk, has_table)))
		return STEP_CALLER;
	frame = walk->regs;
	step = step_by_frame_pointer(&walk->regs, walk);
	if (step == STEP_CALLER) {
		restore_return_address(walk);
		if (is_return_address(walk, walk->regs.ip)) {
			walk->chained = 1;
			return STEP_CALLER;
		}
		step = STEP_NO_ROW;
	} else if (step == STEP_END && (!was_chained || (!frame.fp && !ZERO_ENDS_CHAIN))) {
		step = STEP_NO_ROW;
	}
	walk->regs = frame;
	return step;
}

/*
 * From the i-th frame, which has shown no caller: it may be the first one. So it is if its code
 * says so, or if it lies where the process's stack began and no return address above it; a leaf has
 * little of its own there. One into a first function, and no other, is its caller's: musl describes
 * neither.
 */
__noinline int leave_initial(struct walk *walk, __u32 i, __u32 step)
{
	__u64 words, *word, target, sp;

	if (!walk)
		return STEP_NO_ROW;
	if (walk->is_return_address && is_root(walk, walk->regs.ip))
		return STEP_END;
	sp = walk->regs.sp;
	words = (initial_stack() - sp) / 8;
	if (words >= (i ? INITIAL_WORDS : INITIAL_LEAF / 8))
		return step;
	word = (__u64 *)walk->object; /* scratch space: there is little on the stack */
	if (bpf_probe_read_user(word, INITIAL_FRAME, (const void *)sp))
		return step;
	for (__u32 at = 0; at < INITIAL_WORDS; at++) {
		if (at >= words)
			break;
		if (what_is_before(word[at], &target) != BEFORE_CALL ||
		    !find_mapping(walk, word[at] - 1))
			continue;
		if (!is_root(walk, word[at]))
			return step;
		walk->regs.ip = word[at];
		walk->regs.sp = sp + 8 * (at + 1);
		walk->regs.fp = 0;
		return STEP_CALLER;
	}
	return STEP_END;
}

/* Whether a caller's frame may lie below: on another stack, as some rules say. A stack that leads
 * nowhere is not followed for ever. */
__noinline int has_switched(struct walk *walk, __u32 cfa)
{
	__u64 target;

	return walk && cfa >= CFA_FP && cfa != CFA_PLT && walk->switches++ < MAX_SWITCHES &&
	       what_is_before(walk->regs.ip, &target) == BEFORE_CALL &&
	       find_mapping(walk, walk->regs.ip - 1);
}

/* From a frame whose code has a rule. */
__noinline int leave_covered(struct walk *walk, const struct unwind_rule *rule)
{
	if (!walk || !rule)
		return STEP_NO_ROW;
	return unwind_step(&walk->regs, rule, walk->knows_leaf ? walk->leaf : NULL, walk);
}

/* From a leaf whose rule has found no return address. Where a stack begins there is none; but the
 * rule may be wrong, as in LuaJIT's interpreter, and the leaf have no frame. */
__noinline int leave_rootless(struct walk *walk)
{
	return walk && leave_frameless(walk, TABLE_READY) ? STEP_CALLER : STEP_END;
}

#include "bits32.h"

/* From `walk->regs`, by the mappings of `walk->process`. */
static __always_inline void begin_walk(struct walk *walk)
{
	walk->interpreters = 0;
	walk->mapping = walk->process.first_mapping;
	walk->has_rule = 0;
	walk->regs.bx = walk->leaf[LEAF_BX];
	walk->switches = 0;
	walk->chained = 0;
	walk->unproven = 0;
	walk->called_back = 0;
	walk->hash = 1;
	walk->outcome = OUTCOME_USER_DEPTH;
	if (walk->is_32_bit && is_behind_int80(walk->regs.ip))
		walk->is_return_address = 1;
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
	__u64 ip = walk->regs.ip, sp = walk->regs.sp, fp = walk->regs.fp;
	struct unwind_mapping *mapping;
	bool has_rule, is_trampoline;
	__u64 frame, hash = walk->hash;
	enum step step;
	__u32 number, cfa;

	/* A return address may lie behind its function's last instruction. */
	mapping = find_mapping(walk, ip - walk->is_return_address);
	if (!mapping && i) {
		walk->outcome = OUTCOME_USER_NO_MAPPING;
		return 1;
	}
	/* A caller is none where no code is known, but a leaf runs there. */
	if (!mapping || mapping->has_table == TABLE_SOON) {
		walk->outcome = mapping ? OUTCOME_USER_NO_TABLE : OUTCOME_USER_NO_MAPPING;
		push_word(cpu, ip);
		return 1;
	}
	if (mapping->has_table == TABLE_READY) {
		number = find_rule(walk, mapping);
		if (number != NO_RULE)
			rule = bpf_map_lookup_elem(&unwind_rules, &number);
	}
	cfa = rule ? CFA(rule) : CFA_UNCOVERED;
	if (cfa == CFA_SOON) {
		walk->outcome = OUTCOME_USER_NO_TABLE;
		push_word(cpu, ip);
		return 1;
	}
	has_rule = cfa != CFA_UNCOVERED;
	/* musl does not describe its signal trampoline. */
	is_trampoline = !has_rule && walk->has_rule && is_sigreturn(ip);
	if (is_trampoline)
		walk->is_return_address = 0;
	walk->has_rule = has_rule;
	walk->knows_leaf = i <= walk->is_return_address;
	/* User space takes one byte off all but the leaf's. */
	frame = ip + (i && !walk->is_return_address);
	if (cfa == CFA_SIGNAL) /* nor is a trampoline called */
		frame = ip + 1;
	push_word(cpu, frame);
	if (walk->is_32_bit) {
		step = leave_32_bit(walk, cfa, rule ? rule->saved : 0, rule ? rule->fp_offset : 0,
				    has_rule ? rule->offset : mapping->has_table);
	} else if (is_trampoline) {
		step = step_out_of_signal(&walk->regs, walk);
	} else if (!has_rule) {
		step = leave_uncovered(walk, i, mapping->has_table);
	} else if (cfa >= CFA_SYSTEM_STACK) {
		if (walk->switches++ >= MAX_SWITCHES) {
			walk->outcome = OUTCOME_USER_CHAIN;
			return 1;
		}
		step = leave_go_stack(walk, cfa, i);
		sp = 0; /* on another stack */
	} else {
		walk->chained = 0;
		step = leave_covered(walk, rule);
		if (step == STEP_END && cfa != CFA_END && !walk->is_return_address)
			step = leave_rootless(walk);
	}
	if (!has_rule && !walk->is_32_bit && step > STEP_END)
		step = leave_initial(walk, i, step);
	if (step > STEP_INTERRUPTED) {
		walk->outcome = outcome_of(step);
		if (walk->unproven && walk->outcome == OUTCOME_COMPLETE)
			walk->outcome = OUTCOME_USER_UNPROVEN;
		return 1;
	}
	/* A file may be of any compiler. */
	if (doubts_frame_pointers && !has_rule && walk->chained &&
	    mapping->has_table != TABLE_NONE && !walk->v8 && !keeps_frame_pointer(walk, ip))
		walk->unproven = 1;
	if (walk->interpreters) {
		if (has_rule && IS_LOOP(rule)) {
			/* Towards the leaf from the loop's own frame. */
			body->user_frames--;
			walk->hash = hash;
			if (!IS_JAVA(rule)) {
				if (walk->python)
					push_python_run(cpu, sp, walk->regs.sp);
				push_word(cpu, frame);
			} else if (!push_java_frame(cpu, fp, !i)) {
				push_word(cpu, frame);
			}
		} else if (!has_rule && walk->v8 && walk->regs.sp == fp + FRAME_RECORD) {
			/* By its frame pointer: then what lies below that is the frame's own. */
			body->user_frames--;
			walk->hash = hash;
			if (!push_v8_frame(cpu, fp))
				push_word(cpu, frame);
		}
		if (!has_room(body))
			return 1;
	}
	walk->is_return_address = step == STEP_CALLER;
	if (step == STEP_INTERRUPTED)
		return 0;
	restore_return_address(walk);
	/* A caller's frame lies above; only a leaf may have nothing on its own. */
	if (walk->regs.sp < sp + (i != 0) && !(has_rule && has_switched(walk, cfa))) {
		walk->outcome = OUTCOME_USER_CHAIN;
		return 1;
	}
	/* Code that was interrupted, or so it says: those who only switch stacks do too. */
	if (has_rule && IS_PC_EXACT(rule->saved))
		walk->is_return_address = is_behind_call(walk->regs.ip);
	return 0;
}

#endif
