/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * The ABI between the BPF program and src/recording/capture/bpf. It is declared here and nowhere
 * else: libbpf-cargo makes the Rust types and constants of it at build time, from BTF.
 */
#ifndef PROFILE_H
#define PROFILE_H

/* An enumeration, and not macros, since BTF has the one and not the other. */
enum limits {
	MAX_KERNEL_FRAMES = 511, /* and no more than perf_event_max_stack */
	MAX_FP_FRAMES = 127,	 /* of the user's, by frame pointers alone; by tables, what fits */
	FRAMES_CAPACITY = 1024,	 /* more than there ever are: a power of two */
	/* Unwind tables. */
	ROWS_PER_CHUNK = 16384, /* a page's rows never straddle two chunks */
	MAX_BLOCKS = 256,	/* of chunks */
	MAX_ROWS_PER_PAGE = 8191,
	MAX_MAPPINGS = 65536, /* per process: Linux's own limit, unless one has raised it */
	FEW_MAPPINGS = 256,   /* nearly all processes have fewer: see find_mapping */
	MAX_RULES = 65536,
	LEAF_REGISTERS = 16,
	LEAF_BX = 3, /* on arm64 x30 is there, the only one that rules need */
	LEAF_RULE_RETURN_ADDRESS_SHIFT = 4, /* see LEAF_RULE_CFA */
	LEAF_RULE_ADDED_SHIFT = 9,
	/* Stacks of processes whose tables are not ready: registers and the top of the stack. */
	STACK_DUMP_PAGE = 4096,
	STACK_DUMP_PAGES = 4,
	CGROUP_PATH_BYTES = 1024,     /* what the kernel's tracepoints have room for */
	STACK_DUMPS_PER_PROCESS = 64, /* before it has tables; later ones are not unwound */
	/* Latency of calls. */
	MAX_OPEN_CALLS = 64, /* of a thread, a power of two: the kernel's MAX_URETPROBE_DEPTH */
	LATENCY_SLOTS = 42,  /* powers of two of nanoseconds: an hour and more is the last */
	/* Interpreters. */
	MAX_INTERPRETERS = 256, /* files of each runtime */
	MAX_CODE_NAME = 127,	/* bytes of a name, of a path, of a table of lines */
	MAX_CODE_FILE = 255,
	MAX_CODE_LINES = 2047,
	NO_OFFSET = 0xffff,
};

/*
 * How a run of the sampler ended. Every run increments exactly one of these, so that
 *
 *   runs = idle + filtered + taken,   taken = complete + incomplete by reason + lost by reason
 */
enum outcome {
	/* Not samples. */
	OUTCOME_IDLE,	  /* the idle task, not asked for */
	OUTCOME_FILTERED, /* another process, thread or cgroup than asked for */
	/* Counted, with whole stacks. */
	OUTCOME_COMPLETE,
	/* Counted, with stacks that are known not to be whole. */
	OUTCOME_KERNEL_DEPTH,  /* kernel stack deeper than perf_event_max_stack */
	OUTCOME_KERNEL_FAILED, /* the kernel gave no stack of its own */
	OUTCOME_USER_DEPTH,    /* user stack with more frames than fit */
	OUTCOME_USER_CHAIN,    /* frame-pointer chain broken: not ascending, unaligned */
	OUTCOME_USER_FAULT,    /* frame pointer into memory that cannot be read now */
	OUTCOME_USER_UNKNOWN,  /* walked by the kernel, which does not say where it stopped */
	OUTCOME_USER_NO_ROW,   /* code that unwind tables do not cover, and no frame pointer */
	OUTCOME_USER_NOT_UNDERSTOOD, /* an unwind rule that we do not know */
	OUTCOME_USER_REGISTER,	     /* a rule for a leaf's register, met in a caller */
	OUTCOME_USER_NO_MAPPING,     /* a return address outside code */
	OUTCOME_USER_UNPROVEN,	     /* up to the root, but by a frame pointer of unknown origin */
	OUTCOME_USER_32_BIT,   /* code for the machine's 32-bit mode, where no tables are used */
	OUTCOME_USER_NO_TABLE, /* the process is too young, and there was no room for its stack */
	OUTCOME_USER_DUMPED,   /* the stack went to user space to be unwound there */
	/* Lost. */
	OUTCOME_LOST_COUNTS_FULL, /* no room in the counts map */
	OUTCOME_LOST_COUNTS_BUSY, /* the counts map refused for another reason */
	OUTCOME_LOST_UNSEEN,	  /* a block whose end no switch told */
	OUTCOME_MAX,
};

/* What the time of a count was spent on. */
enum kind {
	KIND_ON_CPU,
	KIND_OFF_CPU, /* blocked */
	KIND_WAKER,   /* nothing: the stack of who ended a block */
	KIND_LATENCY, /* a call that took long */
};

/* Whose samples are taken. */
enum filter {
	FILTER_NONE,
	FILTER_TGID, /* processes in `targets` and the children they fork */
	FILTER_TID,  /* threads in `targets` */
};

#define NO_CPU 0xffffffffU

/* The process and the thread id of all tasks outside of our PID namespace. */
#define OUTSIDE_ID 0xffffffffU

/* A task's cgroups, each in its own hierarchy: see cgroups.h. */
struct cgroup_ids {
	__u64 v2;
	__u64 v1; /* 0: no v1 controller is looked at */
};

/* Samples are counted by thread, by stacks, and by all else that their names depend on. */
struct counts_key {
	__u32 tgid;
	__u32 tid;
	__u32 kind;	       /* enum kind */
	__u32 process_state;   /* hash: see process_state() */
	__u64 comm[2];	       /* the thread's name, 16 bytes */
	__u64 kernel_stack_id; /* hash of the kernel frames, 0 if there are none */
	__u64 user_stack_id;   /* hash of the user frames and of how their walk ended, or 0 */
	__u64 waker_id; /* hash of the waker's key, or 0: of a block, and of the waker itself */
	struct cgroup_ids cgroups;
	__u32 time_slot; /* when, in lengths of a slot since the boot; 0: not kept */
	__u32 cpu;	 /* where, if it is kept; NO_CPU of what was on none */
};
_Static_assert(sizeof(struct counts_key) == 80, "counts_key has padding");

struct counts_value {
	__u64 samples;
	__u64 time_ns;
	__u32 body_sent; /* 1 once the stack_body of this key is in the ring */
	__u32 padding;
};
_Static_assert(sizeof(struct counts_value) == 24, "counts_value has padding");

/* The frames behind the ids of a key, leaf first. Sent once, cut behind the last frame. */
struct stack_body {
	struct counts_key key;
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u32 outcome; /* enum outcome of the walks */
	__u16 kernel_frames;
	__u16 user_frames;
	__u64 frames[FRAMES_CAPACITY]; /* kernel frames, then user frames */
};
_Static_assert(sizeof(struct stack_body) == 96 + 8 * FRAMES_CAPACITY, "stack_body has padding");

/*
 * Unwind tables. A process is a sorted array of its executable mappings. A mapping leads to the
 * pages of its file, 64 KiB of file each; a page to its rows, sorted by the low 16 bits of the file
 * offset; a row to a rule, of which all files together have a few thousand. Rows lie in chunks, and
 * chunks in blocks, of which there are more when those that are there are full.
 */
struct unwind_row {
	__u16 low; /* of the file offset from which on the rule holds */
	__u16 rule;
};

struct unwind_chunk {
	struct unwind_row rows[ROWS_PER_CHUNK];
};

struct unwind_page {
	__u16 block;
	__u16 chunk; /* within the block */
	__u16 first; /* row within the chunk; it begins at offset 0 of the page */
	__u16 rows;
};

enum has_table {
	TABLE_NONE, /* no file: code that was made while the program ran */
	TABLE_READY,
	TABLE_SOON,  /* the file is large, or the code new: its table is being built */
	TABLE_EMPTY, /* a file that describes nothing */
};

/*
 * Executable memory of a process: one mapping, or several side by side that one entry describes. A
 * file's table begins with the first 64 KiB of it that have a row.
 */
struct unwind_mapping {
	__u64 start; /* addresses */
	__u64 end;
	__u64 to_table;	  /* address + to_table = offset from the table's beginning, modulo 2^64 */
	__u32 first_page; /* index of the table's first page */
	__u16 last_page;  /* of the table: its number of pages less 1 */
	__u16 has_table;  /* enum has_table */
};
_Static_assert(sizeof(struct unwind_mapping) == 32, "unwind_mapping has padding");

/*
 * The mappings of a process are a run in the array, by ascending address. Before them lies the
 * run's header. The number in it changes when the run is taken back, before others' mappings are
 * written there. So an entry that has outlived its run, such as a child's that user space does not
 * know of yet, leads nowhere.
 */
struct unwind_run {
	__u64 number;
	__u64 python_bias; /* address - address in its file */
	__u32 python;	   /* the process's interpreters: index in `pythons`, 0 if there is none */
	__u32 v8;
	__u32 java; /* 1 if it has a HotSpot */
	__u32 unused;
};
_Static_assert(sizeof(struct unwind_run) == sizeof(struct unwind_mapping), "a header is an entry");

/*
 * A process id is given away again, and what user space publishes may be those of a program that is
 * gone: an entry says whose it is.
 */
struct unwind_process {
	__u32 first_mapping;
	__u32 mappings; /* 0: not known yet */
	__u32 dumps;	/* stacks sent so far */
	__u32 run;	/* number in the run's header; never 0 */
	__u32 execs;	/* low half of the owner's self_exec_id */
	__u32 padding;
	__u64 owner;	/* its start_boottime; 0: of whoever has the id, who is to set it */
	__u64 since_ns; /* CLOCK_MONOTONIC: of its fork or exec, if that was seen */
};
_Static_assert(sizeof(struct unwind_process) == 40, "unwind_process has padding");

/* Where a frame's CFA is: the value of rsp before the call that made the frame. */
enum cfa {
	CFA_UNCOVERED, /* no row: by frame pointer, if that works */
	CFA_NOT_UNDERSTOOD,
	CFA_END,	   /* a thread's first function */
	CFA_SP,		   /* sp + offset */
	CFA_FP,		   /* fp + offset */
	CFA_DEREF_SP,	   /* *(sp + low half of offset) + high half */
	CFA_DEREF_FP,	   /* *(fp + low half of offset) + high half */
	CFA_PLT,	   /* sp + 8, and 8 more from the offset-th byte of a 16-byte entry on */
	CFA_REGISTER,	   /* a register of the leaf's, or rbx: see LEAF_RULE */
	CFA_DEREF_INDEXED, /* *(sp + 8 * a register of the leaf's + …) + …: see INDEXED_RULE */
	CFA_SIGNAL,	   /* all registers are in the sigcontext */
	CFA_SOON,	   /* where code is made: what is there now is not known yet */
	/* On another stack: see switch_stack. */
	CFA_SYSTEM_STACK,
	CFA_MORE_STACK,
	CFA_CGO_CALL,
	CFA_OTHER_STACK, /* by frame pointer */
};

/* Where the caller's frame pointer is. */
enum saved_fp {
	SAVED_FP_SAME,	    /* in its register */
	SAVED_FP_AT_CFA,    /* *(CFA + fp_offset) */
	SAVED_FP_AT_FP,	    /* *(fp + fp_offset) */
	SAVED_FP_AT_SP,	    /* *(sp + fp_offset) */
	SAVED_FP_UNDEFINED, /* lost */
	SAVED_FP_REGISTER,  /* in the leaf's register of number fp_offset */
};

/*
 * CFA_REGISTER packs into `offset`, by DWARF numbers: the CFA's register in bits 0-3, the return
 * address's in bits 4-8 (LEAF_REGISTERS: it is at CFA - 8), and what is added to the CFA's register
 * above.
 */
#define LEAF_RULE_CFA(offset) ((offset) & (LEAF_REGISTERS - 1))
#define LEAF_RULE_RETURN_ADDRESS(offset)                                                           \
	(((offset) >> LEAF_RULE_RETURN_ADDRESS_SHIFT) & (2 * LEAF_REGISTERS - 1))
#define LEAF_RULE_ADDED(offset) ((offset) >> LEAF_RULE_ADDED_SHIFT)

/*
 * CFA_DEREF_INDEXED packs into `offset`: the register in bits 0-3, what is added to the address in
 * bits 4-15, and what is added to what is there in the high half.
 */
#define INDEXED_RULE_REGISTER(offset) ((offset) & (LEAF_REGISTERS - 1))
#define INDEXED_RULE_ADDED(offset) ((__s16)(offset) >> 4)

/*
 * ld.so's lazy binding keeps its caller's stack pointer in rbx while it calls others. So in a file
 * with such rules, and only there, rbx is followed: the caller's is at CFA - 8 * saved_bx.
 */
#define SAVED_BX_LOST 0
#define SAVED_BX_SAME 1 /* in its register, for the return address is at CFA - 8 */
#define SAVED_FP(saved) ((saved)&7)
/* The caller may not have called: it goes on at this very instruction. */
#define SAVED_PC_EXACT 8
#define IS_PC_EXACT(saved) ((saved)&SAVED_PC_EXACT)
#define SAVED_BX(saved) ((saved) >> 4)

/* The code is that of an interpreter's loop: see interpreters.h. */
#define CFA_OF_LOOP 0x80
#define CFA(rule) ((rule)->cfa & ~CFA_OF_LOOP)
#define IS_LOOP(rule) ((rule)->cfa & CFA_OF_LOOP)
/* It is that of HotSpot, a frame of which is one of a method. */
#define IS_JAVA(rule) (IS_LOOP(rule) && IS_PC_EXACT((rule)->saved))

struct unwind_rule {
	__u8 cfa;   /* enum cfa, and CFA_OF_LOOP */
	__u8 saved; /* enum saved_fp in bits 0-2, SAVED_PC_EXACT, saved_bx above */
	__s16 fp_offset;
	__s32 offset;
};
_Static_assert(sizeof(struct unwind_rule) == 8, "unwind_rule has padding");

/* Registers of one frame. */
struct unwind_registers {
	__u64 ip;
	__u64 sp;
	__u64 fp;
	__u64 bx; /* 0: lost */
};

struct stack_dump {
	struct counts_key key;
	__u64 time_ns;
	struct unwind_registers regs;
	__u64 leaf[LEAF_REGISTERS];
	__u32 outcome; /* of the kernel's stack */
	__u16 kernel_frames;
	__u16 pages;		 /* that were readable, from the one that sp points into */
	__u32 is_return_address; /* as in struct walk */
	__u32 is_32_bit;
	__u64 initial_stack;  /* stack pointer of the process's first function */
	__u64 thread_pointer; /* of a thread that goes on being blocked; otherwise 0 */
	__u64 kernel[MAX_KERNEL_FRAMES + 1];
	__u8 stack[STACK_DUMP_PAGES * STACK_DUMP_PAGE];
};

/*
 * A frame of a script is two words among the addresses, of which no user's has the top bit. The
 * first has the runtime and the address of what describes the function, a code object; the second
 * the instruction in it and a checksum of what the code object was then, so that another one which
 * takes its place has another name. Or it is one word, that a frame is missing and why.
 */
#define SCRIPT_FRAME (1ULL << 63)
#define SCRIPT_RUNTIME_SHIFT 58
#define SCRIPT_MISSING 1ULL /* no code object has an odd address */
#define SCRIPT_MISSING_SHIFT 8
#define SCRIPT_INSTRUCTION_SHIFT 40
#define SCRIPT_INSTRUCTION_MASK 0x7fffffULL
#define SCRIPT_CHECKSUM_MASK ((1ULL << SCRIPT_INSTRUCTION_SHIFT) - 1)

enum runtime {
	RUNTIME_PYTHON,
	RUNTIME_V8,
	RUNTIME_JAVA, /* the code object is a Method, the instruction the end of an address */
};

/* Why frames of a script are missing where the interpreter's loop ran. */
enum script_missing {
	MISSING_NONE,
	MISSING_THREAD,	 /* the interpreter knows no such thread */
	MISSING_FRAME,	 /* a frame could not be read */
	MISSING_CODE,	 /* what a frame executes could not be read, or is none */
	MISSING_NO_ROOM, /* for all of them */
};

/* Which frames of CPython's one run of its loop has, which is one native frame. */
enum python_runs {
	PYTHON_ONE_EACH, /* one: up to 3.10 */
	PYTHON_IS_ENTRY, /* 3.11: up to the one that is marked */
	PYTHON_SHIM,	 /* 3.12 on: up to one without code, which lies in the native frame */
};

/* How CPython tells lines. */
enum python_lines {
	PYTHON_LNOTAB,	  /* up to 3.9 */
	PYTHON_LINETABLE, /* 3.10 */
	PYTHON_LOCATIONS, /* 3.11 on */
};

/* Where a CPython has what: addresses in its file, and offsets in its structures. NO_OFFSET: there
 * is no such field. */
struct python {
	__u64 interpreters; /* the pointer to the first PyInterpreterState */
	__u64 code_type;    /* PyCode_Type */
	__u16 interpreter_next, interpreter_threads;
	__u16 thread_next, thread_id, thread_frame, thread_cframe;
	__u16 cframe_frame, cframe_previous;
	__u16 frame_code, frame_previous, frame_instruction, frame_owner;
	__u16 object_type;
	__u16 code_size, code_first_line, code_name, code_qualified, code_file, code_lines;
	__u16 code_instructions;
	__u16 text_length, text_hash, text_ascii, text_wide, bytes_data;
	__u16 text_kind_shift;
	__u16 runs;  /* enum python_runs */
	__u16 lines; /* enum python_lines */
};

/* The same of V8, by what it exports for debuggers. */
struct v8 {
	__s16 fp_function;
	__u16 map_type;
	__u16 js_first, js_last, js_shared; /* types of functions */
	__u16 shared_type, shared_name, shared_script, shared_flags;
	__u16 scope_type, scope_first_local, scope_locals;
	__u16 nonstring, string_length, string_chars;
	__u16 script_type, script_name;
	__u16 shared_bytes; /* that are read of a SharedFunctionInfo */
	__u16 unused[2];
};
_Static_assert(sizeof(struct v8) % 8 == 0, "entries of a mapped array are multiples of 8");

/* What names a code object. */
struct code_record {
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 code;
	__u64 checksum;
	__u32 tgid;
	__u32 first_line;
	__u16 runtime;	 /* enum runtime */
	__u16 lines;	 /* enum python_lines */
	__u16 name_kind; /* bytes of a character; 0: of ASCII */
	__u16 file_kind;
	__u16 name_bytes; /* of what follows, one behind the other */
	__u16 file_bytes;
	__u16 lines_bytes;
	__u16 padding;
	__u8 text[512 + 2048]; /* room for the largest at any place that the two before leave */
};
_Static_assert(sizeof(struct code_record) == 48 + 512 + 2048, "code_record has padding");

/* Where the frames of one state of a thread go on. */
struct python_state {
	__u64 frame;
	__u64 cframe;
};

#define MAX_PYTHON_STATES 4 /* of a thread, which may run several interpreters */

/* CPython's, in a walk: see python.h. */
struct python_walk {
	__u64 low; /* of the native frame of the loop: its sp and its CFA */
	__u64 high;
	struct python_state states[MAX_PYTHON_STATES];
	struct python_state next; /* of the state that is tried */
	__u64 code;		  /* the last one */
	__u64 checksum;
	__u64 hash_before; /* this run */
	__u32 frames_before;
	__u32 used;	/* of `states` */
	__u32 is_known; /* 1: those are */
	__u32 is_above; /* 1: the frames that were found belong to a run further up */
	__u32 missing;	/* enum script_missing */
	__u32 padding;
};

#define OBJECT_BYTES 256 /* of a structure; a power of two */

#define STACK_WINDOW 512 /* bytes: see window.h */

/* A walk of a user stack, between two frames. */
struct walk {
	struct unwind_registers regs;
	__u64 leaf[LEAF_REGISTERS]; /* by DWARF number */
	__u64 hash;		    /* of the frames so far */
	struct unwind_process process;
	__u32 mapping;		 /* index of the last frame's */
	__u32 is_return_address; /* 1 if regs.ip lies behind a call */
	__u32 outcome;
	__u32 at;	   /* of a search */
	__u32 has_rule;	   /* 1 if the last frame's code is covered */
	__u32 switches;	   /* between stacks */
	__u32 chained;	   /* 1 if the frame's fp was found by that of another, not by a row */
	__u32 is_32_bit;   /* 1 in code for the machine's 32-bit mode: see bits32.h */
	__u64 called_back; /* where the goroutine was left, if C has called it back: see go.h */
	__u64 uretprobe;   /* the next replaced return address: see uretprobes.h */
	__u64 uretprobe_sp;
	__u32 interpreters; /* 1 if the process has some */
	__u32 python;	    /* as in struct unwind_run */
	__u32 v8;
	__u32 knows_leaf; /* 1 if the frame's registers are those in `leaf` */
	__u32 unproven; /* 1 if a frame pointer was followed that may be a function's further up */
	__u32 padding;
	__u64 python_bias;
	struct python_walk in_python;
	__u8 object[OBJECT_BYTES + 8]; /* a structure of an interpreter's, as far as it was read */
	__u64 window_start;
	__u8 window[STACK_WINDOW + 16];
};

/* A cgroup that was made or, if `tgid` is set, a process that came to the recorded one. */
struct cgroup_event {
	__u64 time_ns;
	__u64 id;
	__u32 is_v1;
	__u32 tgid;
	__u8 path[CGROUP_PATH_BYTES];
};

/* What a thread does, as its last switch told. */
enum thread_state {
	THREAD_UNKNOWN, /* it has not switched yet */
	THREAD_ON_CPU,
	THREAD_BLOCKED,
	THREAD_RUNNABLE, /* waiting for a CPU */
};

/* A thread's time since `start_ns`, kept while its CPU switches. */
struct thread_time {
	__u64 start_ns;
	__u64 since_ns; /* the state holds */
	__u64 on_cpu_ns;
	__u64 off_cpu_ns;   /* all of it: runnable, blocked, and blocked for too short a time */
	__u64 runnable_ns;  /* of which it waited for a CPU */
	__u64 stacked_ns;   /* of which is counted under a stack */
	__u64 run_delay_ns; /* the scheduler's sums at the last look */
	__u64 exec_ns;
	__u64 waker_id; /* of who ended the block that is about to be counted */
	__u64 blocks;
	__u64 preemptions;
	__u64 stacked; /* blocks that are counted under a stack */
	__u32 tid;
	__u32 state;	  /* enum thread_state */
	__u32 task_state; /* TASK_* bits with which it left the CPU */
	__u32 changes;	  /* odd while a switch changes this */
	__u32 ended;	  /* nothing is added any more */
	__u32 told;	  /* its record is written */
};

/* A thread's time in the recording, at its end or the recording's. */
struct thread_record {
	__u32 tgid;
	__u32 tid;
	__u64 start_ns;
	__u64 end_ns;
	__u64 on_cpu_ns;
	__u64 off_cpu_ns;
	__u64 runnable_ns;
	__u64 stacked_ns;
	__u64 blocks;
	__u64 preemptions;
	__u64 stacked;
	struct cgroup_ids cgroups;
	__u8 comm[16];
	__u32 has_stack;
	__u32 padding;
};

/* What follows the record of a thread that lives on, if `has_stack`: it is blocked. */
struct blocked_thread {
	__u64 blocked_ns;
	struct stack_dump dump;
};

struct thread_flush {
	struct thread_record record;
	struct blocked_thread blocked;
};

/* A thread that is counted: what it had used when the recording began. See counters.bpf.c. */
struct counted_thread {
	__u64 start; /* start_boottime, as ids are given away again */
	__u64 run_ns;
	__u64 switches;
	__u64 migrations;
	__u64 faults;
	__u64 major_faults;
	__u32 ends; /* it has exited, and is not freed yet */
	__u32 told; /* it is in the sums */
};

/* What all of them used in the recording. */
struct counters {
	__u64 run_ns;
	__u64 switches;
	__u64 migrations;
	__u64 faults;
	__u64 major_faults;
	__u64 threads_lost; /* there was no room for what they had used */
	__s64 ending;	    /* threads that have exited and are in no sum yet */
	__u32 command_began;
	__u32 ended;
};

/* The calls of a thread that have not returned yet, innermost last: see latency.bpf.c. */
struct open_call {
	__u64 place; /* of its return address; 0 of a system call */
	__u64 start_ns;
};

struct open_calls {
	__u32 calls;
	__u32 padding;
	struct open_call call[MAX_OPEN_CALLS];
};

/* A process, whose id is given away again. */
struct latency_key {
	__u32 tgid;
	__u32 padding;
	__u64 start;
};

/* Its calls: calls = returned + left + deep + those that are open. */
struct latency {
	__u64 calls;
	__u64 returned;
	__u64 left;	 /* without a return */
	__u64 deep;	 /* not timed: inside of too many others, or there was no memory */
	__u64 slow;	 /* of the returned */
	__u64 slow_lost; /* without a stack: two at once on a CPU */
	__u64 total_ns;
	__u64 longest_ns;
	__u64 comm[2];
	__u64 slots[LATENCY_SLOTS]; /* returned ones by the power of two of their nanoseconds */
};

/* They interrupt each other: each has its own space. */
enum cpu_state_index {
	CPU_STATE_SAMPLER,
	CPU_STATE_SCHEDULER,
	CPU_STATE_WAKER,
	CPU_STATE_LATENCY,
	CPU_STATES,
};

/* What each CPU has for itself. */
struct cpu_state {
	__u64 outcomes[OUTCOME_MAX];
	__u64 bodies_delayed; /* ring full: the body is sent with a later sample of its key */
	__u64 follow_failed;  /* children that did not fit into `targets` */
	__u64 threads_lost;   /* threads for whose time or its record there was no room */
	__u64 hits;	      /* of a tracepoint, since the last sample */
	__u64 pending_ns;     /* off the CPU, of the thread that is about to return from a block */
	struct walk walk;     /* scratch space of the sampler, as are the next two */
	struct stack_body body;
	struct code_record code;
};

#endif
