/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * Frames of scripts, among the native ones. An interpreter runs a script's functions in a loop,
 * which is a C function: one native frame may stand for many frames of the script, and between two
 * native frames of the loop there may be C that the script has called and that calls the script
 * again. So the script's frames are put where the native frame of their own loop stands, towards
 *the leaf. Code of the loop is marked in the unwind tables: other frames pay nothing.
 *
 * Code that a runtime compiles has native frames of its own. Where no table describes the code, the
 * frame is asked whose it is, and the script's function stands in the place of the address.
 *
 * Where user space asks the runtime what it has compiled, as it does of HotSpot, code has a table.
 *
 * Each runtime has a header. What interpreters have in memory may be anything: each of its words is
 * an offset or a pointer to be read, and costs the process its own names at worst.
 *
 * The includer has, beside what walk.h wants,
 *
 *	pythons, v8s          where the runtimes have what, by file, as in tables.h
 *	thread_pointer()      the thread's, as user space has it
 *	recall_thread()       what remember_thread() was last given for the thread, or 0
 */
#ifndef INTERPRETERS_H
#define INTERPRETERS_H

/* What the process has, by the header of its mappings. */
static __always_inline void begin_interpreters(struct walk *walk, const struct unwind_run *run)
{
	walk->interpreters = run->python || run->v8 || run->java;
	walk->python = run->python;
	walk->v8 = run->v8;
	walk->python_bias = run->python_bias;
	walk->in_python.is_known = 0;
}

/* For a frame of two words, one that says what is missing, and one of the loop. */
static __always_inline bool has_room(const struct stack_body *body)
{
	return body->kernel_frames + body->user_frames < FRAMES_CAPACITY - 4;
}

/* Adds a frame, or one word of one; user space takes one byte off callers' addresses. */
static __always_inline void push_word(struct cpu_state *cpu, __u64 word)
{
	struct stack_body *body = &cpu->body;

	body->frames[(body->kernel_frames + body->user_frames) & (FRAMES_CAPACITY - 1)] = word;
	body->user_frames++;
	cpu->walk.hash = hash_step(cpu->walk.hash, word);
}

static __always_inline __u64 script_runtime(enum runtime runtime)
{
	return SCRIPT_FRAME | (__u64)runtime << SCRIPT_RUNTIME_SHIFT;
}

static __always_inline void push_script_frame(struct cpu_state *cpu, enum runtime runtime,
					      __u64 code, __u64 instruction, __u64 checksum)
{
	if (instruction > SCRIPT_INSTRUCTION_MASK)
		instruction = SCRIPT_INSTRUCTION_MASK;
	push_word(cpu, script_runtime(runtime) | code);
	push_word(cpu, SCRIPT_FRAME | instruction << SCRIPT_INSTRUCTION_SHIFT |
			   (checksum & SCRIPT_CHECKSUM_MASK));
}

/* The word at an offset of the structure that was read last. */
static __always_inline __u64 object_word(const struct walk *walk, __u32 at)
{
	return *(const __u64 *)&walk->object[at & (OBJECT_BYTES - 1)];
}

static __always_inline bool read_object(struct walk *walk, __u64 address, __u32 bytes)
{
	return !bpf_probe_read_user(walk->object, bytes & (OBJECT_BYTES - 1),
				    (const void *)address);
}

#include "java.h"
#include "python.h"
#include "v8.h"

#endif
