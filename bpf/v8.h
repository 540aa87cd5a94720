/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * V8, in Node.js and Electron.
 *
 * A JavaScript function has a native frame, whether it is interpreted or compiled, with a frame
 * pointer and below that the JSFunction and its context. What names it is its SharedFunctionInfo.
 * Pointers are tagged: they end in 01. All offsets and types are those that V8 exports for
 * debuggers (v8dbg_…).
 *
 * The garbage collector moves objects. A function that has moved is sent again, and has the same
 * name.
 */
#ifndef V8_H
#define V8_H

#define V8_REPRESENTATION 7 /* in the type of a string; user space has checked these */
#define V8_SEQUENTIAL 0
#define V8_THIN 5
#define V8_ONE_BYTE 8
#define V8_MOST_SLOTS 8 /* of a ScopeInfo, up to the function's name */

static __always_inline const struct v8 *v8_of(const struct walk *walk)
{
	__u32 index = walk->v8; /* on the stack: not every kernel takes a key from anywhere */

	return bpf_map_lookup_elem(&v8s, &index);
}

/* The object that a field points to; 0 if it is none. */
static __always_inline __u64 v8_field(__u64 address)
{
	__u64 word;

	return read_word(&word, address) && (word & 3) == 1 ? word - 1 : 0;
}

static __always_inline __u64 v8_untag(__u64 word)
{
	return (word & 3) == 1 ? word - 1 : 0;
}

/* The type of an object, whose map has it at an offset. */
__noinline int v8_type(__u64 object, __u32 offset)
{
	__u64 map = object ? v8_field(object) : 0;
	__u16 type = 0;

	if (!map || bpf_probe_read_user(&type, sizeof(type), (const void *)(map + offset)))
		return -1;
	return type;
}

/* Reads a SharedFunctionInfo; its checksum, or 0 if it is none. */
static __always_inline __u64 read_v8_function(struct walk *walk, const struct v8 *v8, __u64 shared)
{
	__u64 hash;

	if (!shared || v8_type(shared, v8->map_type) != v8->shared_type ||
	    !read_object(walk, shared, v8->shared_bytes))
		return 0;
	hash = hash_step(1, (__u32)object_word(walk, v8->shared_flags));
	hash = hash_step(hash, object_word(walk, v8->shared_name));
	return hash_step(hash, object_word(walk, v8->shared_script)) | 1;
}

/* Adds the function of the frame at `fp`; 1 if it is one of JavaScript. */
__noinline int push_v8_frame(struct cpu_state *cpu, __u64 fp)
{
	__u64 words[2], shared, checksum;
	const struct v8 *v8;
	int type;

	if (!cpu)
		return 0;
	v8 = v8_of(&cpu->walk);
	/* Behind the function lies a context; frames of other kinds have a number there. */
	if (!v8 ||
	    bpf_probe_read_user(words, sizeof(words), (const void *)(fp + v8->fp_function)) ||
	    (words[0] & 3) != 1 || (words[1] & 3) != 1)
		return 0;
	type = v8_type(words[0] - 1, v8->map_type);
	if (type < v8->js_first || type > v8->js_last)
		return 0;
	shared = v8_field(words[0] - 1 + v8->js_shared);
	checksum = read_v8_function(&cpu->walk, v8, shared);
	if (!checksum)
		return 0;
	push_script_frame(cpu, RUNTIME_V8, shared, SCRIPT_INSTRUCTION_MASK, checksum);
	return 1;
}

/* Adds a string's characters to the record, `at` bytes behind the first; how many bytes they are,
 * and in the upper half how many each; -1 if it is none. */
__noinline int copy_v8_string(struct cpu_state *cpu, __u64 string, __u32 at)
{
	const struct v8 *v8;
	__u32 length = 0, bytes, width;
	int type;

	if (!cpu)
		return -1;
	v8 = v8_of(&cpu->walk);
	if (!v8)
		return -1;
	type = v8_type(string, v8->map_type);
	if (type >= 0 && type < v8->nonstring && (type & V8_REPRESENTATION) == V8_THIN) {
		/* It stands for another. */
		string = v8_field(string + v8->string_chars);
		type = v8_type(string, v8->map_type);
	}
	if (type < 0 || type >= v8->nonstring || (type & V8_REPRESENTATION) != V8_SEQUENTIAL ||
	    bpf_probe_read_user(&length, sizeof(length),
				(const void *)(string + v8->string_length)))
		return -1;
	width = type & V8_ONE_BYTE ? 1 : 2;
	bytes = (length > MAX_CODE_FILE / 2 ? MAX_CODE_FILE / 2 : length) * width;
	if (width == 1 && length > MAX_CODE_FILE / 2)
		bytes = length > MAX_CODE_FILE ? MAX_CODE_FILE : length;
	if (bpf_probe_read_user(&cpu->code.text[at & 255], bytes & MAX_CODE_FILE,
				(const void *)(string + v8->string_chars)))
		return -1;
	return (bytes & MAX_CODE_FILE) | width << 16;
}

/* Fills `cpu->code` with what names a function; 0 if it cannot be read. */
__noinline int describe_v8_code(struct cpu_state *cpu, __u64 shared)
{
	__u64 name, script, locals = 0, slot;
	struct code_record *record;
	const struct v8 *v8;
	int copied = -1;

	if (!cpu)
		return 0;
	record = &cpu->code;
	v8 = v8_of(&cpu->walk);
	if (!v8)
		return 0;
	record->checksum = read_v8_function(&cpu->walk, v8, shared) & SCRIPT_CHECKSUM_MASK;
	name = v8_untag(object_word(&cpu->walk, v8->shared_name));
	script = v8_untag(object_word(&cpu->walk, v8->shared_script));
	record->first_line = record->lines = 0;
	record->name_bytes = record->file_bytes = record->lines_bytes = 0;
	record->name_kind = record->file_kind = 0;
	if (v8_type(name, v8->map_type) == v8->scope_type) {
		/* Behind two words for each variable; what is not there has no slot. */
		read_word(&locals, name + 8 + 8 * v8->scope_locals);
		slot = name + 8 + 8 * (v8->scope_first_local + 2 * (locals >> 32));
		for (int i = 0; i < V8_MOST_SLOTS && copied < 0; i++)
			copied = copy_v8_string(cpu, v8_field(slot + 8 * i), 0);
	} else {
		copied = copy_v8_string(cpu, name, 0);
	}
	if (copied > 0) {
		record->name_bytes = copied & MAX_CODE_FILE;
		record->name_kind = copied >> 16;
	}
	copied = -1;
	if (v8_type(script, v8->map_type) == v8->script_type)
		copied =
		    copy_v8_string(cpu, v8_field(script + v8->script_name), record->name_bytes);
	if (copied > 0) {
		record->file_bytes = copied & MAX_CODE_FILE;
		record->file_kind = copied >> 16;
	}
	return 1;
}

#endif
