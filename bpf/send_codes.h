/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/* Sends what names the code objects of a stack: see codes.h. */
#ifndef SEND_CODES_H
#define SEND_CODES_H

struct codes_context {
	struct cpu_state *cpu;
};

/* Sends the description in `cpu->code`. */
static __always_inline bool send_description(struct code_record *record)
{
	__u32 bytes = record->name_bytes + record->file_bytes + record->lines_bytes;

	record->time_ns = bpf_ktime_get_ns();
	if (bytes > sizeof(record->text))
		return false;
	return !bpf_ringbuf_output(
	    &codes, record, __builtin_offsetof(struct code_record, text) + bytes, BPF_RB_NO_WAKEUP);
}

static __always_inline int describe(struct cpu_state *cpu, enum runtime runtime, __u64 code)
{
	if (runtime == RUNTIME_V8)
		return describe_v8_code(cpu, code);
	return describe_python_code(cpu, code);
}

/* One word of the stack: of each frame of a script the first, which has no other before it. */
static long send_code(__u32 i, void *data)
{
	struct cpu_state *cpu = ((struct codes_context *)data)->cpu;
	struct stack_body *body = &cpu->body;
	struct code_record *record = &cpu->code;
	__u64 frame, second;
	struct code_key key = {};
	volatile __u32 *at = &cpu->walk.at;
	__u8 one = 1;

	if (*at + 1 >= body->user_frames)
		return 1;
	frame = body->frames[(body->kernel_frames + *at) & (FRAMES_CAPACITY - 1)];
	second = body->frames[(body->kernel_frames + *at + 1) & (FRAMES_CAPACITY - 1)];
	*at += 1;
	if (!(frame & SCRIPT_FRAME) || (frame & SCRIPT_MISSING))
		return 0;
	*at += 1;
	key.code = frame & ((1ULL << SCRIPT_RUNTIME_SHIFT) - 1);
	key.checksum = second & SCRIPT_CHECKSUM_MASK;
	key.tgid = body->key.tgid;
	key.runtime = (frame & ~SCRIPT_FRAME) >> SCRIPT_RUNTIME_SHIFT;
	/* User space names methods of Java. */
	if (key.runtime == RUNTIME_JAVA || bpf_map_lookup_elem(&known_codes, &key))
		return 0;
	record->code = key.code;
	record->tgid = key.tgid;
	record->runtime = key.runtime;
	/* It may be another one by now; and the ring may be full. Both show in the frame's name,
	 * unless a later stack brings it. */
	if (describe(cpu, key.runtime, key.code) && record->checksum == key.checksum &&
	    send_description(record))
		bpf_map_update_elem(&known_codes, &key, &one, BPF_ANY);
	return 0;
}

__noinline int send_codes(__u32 state)
{
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpu_states, &state);
	struct codes_context context = {.cpu = cpu};

	if (!cpu)
		return 0;
	cpu->walk.at = 0;
	bpf_loop(FRAMES_CAPACITY, send_code, &context, 0);
	return 0;
}

#endif
