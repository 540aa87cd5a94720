/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * HotSpot, the Java virtual machine: its interpreter's frames. Compiled methods are named by their
 * addresses, in user space, which also makes the tables by which they are walked (src/hotspot).
 *
 * The interpreter keeps frame pointers, and below that, in the words that its frame begins with,
 * the Method, the address of the bytecode, and where its caller's stack ends: a compiled caller's
 * arguments are moved to make room for them (frame_x86.hpp, the same in JDK 17 to 25).
 */
#ifndef JAVA_H
#define JAVA_H

#define JAVA_BYTECODE 0 /* words from fp - 64 on */
#define JAVA_METHOD 5
#define JAVA_SENDER_SP 7
#define JAVA_WORDS 8
#define JAVA_CONST_METHOD 8 /* in a Method; user space has checked it */
#define JAVA_MOST_MOVED (1 << 16)
#define LEAF_R13 13 /* where the running frame has its bytecode */

/* Adds the method of the frame at `fp`, and ends it where its caller's stack ends; 1 if it is
 * known. */
__noinline int push_java_frame(struct cpu_state *cpu, __u64 fp, __u32 is_leaf)
{
	__u64 words[JAVA_WORDS], method, part;

	if (!cpu || bpf_probe_read_user(words, sizeof(words), (const void *)(fp - sizeof(words))))
		return 0;
	if (words[JAVA_SENDER_SP] >= cpu->walk.regs.sp &&
	    words[JAVA_SENDER_SP] - cpu->walk.regs.sp < JAVA_MOST_MOVED)
		cpu->walk.regs.sp = words[JAVA_SENDER_SP];
	method = words[JAVA_METHOD];
	/* A frame that is being made has none yet. */
	if ((method & 7) || method > HIGHEST_USER_ADDRESS ||
	    !read_word(&part, method + JAVA_CONST_METHOD) || !part || (part & 7))
		return 0;
	if (is_leaf)
		words[JAVA_BYTECODE] = cpu->walk.leaf[LEAF_R13];
	push_word(cpu, script_runtime(RUNTIME_JAVA) | method);
	push_word(cpu, SCRIPT_FRAME |
			   (words[JAVA_BYTECODE] & SCRIPT_INSTRUCTION_MASK)
			       << SCRIPT_INSTRUCTION_SHIFT |
			   (part & SCRIPT_CHECKSUM_MASK));
	return 1;
}

#endif
