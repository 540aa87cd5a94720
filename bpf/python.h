/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * CPython 3.8 and later.
 *
 * A thread's frames are a list from its PyThreadState, leaf first. The state is the one that has
 * the thread's pthread_t, which is its thread pointer, among those that hang from _PyRuntime; it is
 * kept by thread, and asked again at each use whose it is. A thread that runs several interpreters
 * has a state in each, and the native stack has their runs in any order: each run is that of the
 * state whose frames lie there or, up to 3.9, which do not tell, of the newest interpreter's that
 * has frames left.
 *
 * Which frames belong to one run of the loop, that is to one native frame, the list tells, by
 * version: each is a run, or the last one of a run is marked, or a frame without code ends it which
 * lies in the native frame itself. A run whose own frames are not in the list yet, or not any more,
 * would take those of the run that called it: so what the run has on the native stack must lie
 * between the native frame's stack pointer and its CFA.
 */
#ifndef PYTHON_H
#define PYTHON_H

#define MAX_PYTHON_THREADS 512
#define OWNED_BY_INTERPRETER 3 /* and above: a frame without code */
#define PYTHON_OWN_CODE 1      /* in place of a checksum: see read_python_code() */

struct python_context {
	struct cpu_state *cpu;
};

static __always_inline const struct python *python_of(const struct walk *walk)
{
	__u32 index = walk->python; /* on the stack: not every kernel takes a key from anywhere */

	return bpf_map_lookup_elem(&pythons, &index);
}

/* A search for a thread's states. */
struct python_search {
	const struct python *py;
	struct python_walk *in;
	__u64 self; /* the thread's pointer */
	__u64 interpreter;
	__u64 thread;	  /* the state to look at */
	__u64 has_others; /* there is more than one interpreter */
};

/* Takes a state's frames, if it is the thread's; false if it is not. */
static __always_inline bool take_python_state(const struct python_search *search)
{
	const struct python *py = search->py;
	struct python_walk *in = search->in;
	struct python_state *state;
	__u64 thread = search->thread, id;

	if (!read_word(&id, thread + py->thread_id) || id != search->self)
		return false;
	state = &in->states[in->used & (MAX_PYTHON_STATES - 1)];
	state->cframe = 0;
	if (py->thread_cframe != NO_OFFSET &&
	    !read_word(&state->cframe, thread + py->thread_cframe))
		return true;
	if (py->cframe_frame != NO_OFFSET)
		thread = state->cframe + py->cframe_frame;
	else
		thread += py->thread_frame;
	/* Interpreters that are not running are no choice, and would take the others' places. */
	if (read_word(&state->frame, thread) && (state->frame || !search->has_others))
		in->used++;
	return true;
}

/* Looks at one state; 1 ends the search. */
static long look_at_python_thread(__u32 i __attribute__((unused)), void *data)
{
	struct python_search *search = data;
	const struct python *py = search->py;

	if (!search->thread) {
		if (!read_word(&search->interpreter, search->interpreter + py->interpreter_next) ||
		    !search->interpreter ||
		    !read_word(&search->thread, search->interpreter + py->interpreter_threads))
			return 1;
		return 0;
	}
	if (take_python_state(search) &&
	    (!search->has_others || search->in->used == MAX_PYTHON_STATES))
		return 1;
	return !read_word(&search->thread, search->thread + py->thread_next);
}

/* Finds the running thread's states. */
static __noinline int find_python_states(struct walk *walk, const struct python *py)
{
	struct python_search search = {.py = py, .self = thread_pointer()};

	if (!walk || !py || !search.self)
		return 0;
	search.in = &walk->in_python;
	if (!read_word(&search.interpreter, walk->python_bias + py->interpreters) ||
	    !search.interpreter ||
	    !read_word(&search.has_others, search.interpreter + py->interpreter_next))
		return 0;
	search.thread = search.has_others ? 0 : recall_thread();
	if (search.thread && take_python_state(&search))
		return 0;
	if (!read_word(&search.thread, search.interpreter + py->interpreter_threads))
		return 0;
	bpf_loop(MAX_PYTHON_THREADS, look_at_python_thread, &search, 0);
	if (walk->in_python.used && !search.has_others)
		remember_thread(search.thread);
	return 0;
}

/*
 * Reads a code object; its checksum, or 0 if it is none. CPython's own code, by which it calls a
 * class's __init__ since 3.12, is in no file but its own name. Tracebacks do not show it either.
 */
static __always_inline __u64 read_python_code(struct walk *walk, const struct python *py,
					      __u64 code)
{
	__u64 name, hash;

	if (!read_object(walk, code, py->code_size) ||
	    object_word(walk, py->object_type) != walk->python_bias + py->code_type)
		return 0;
	name = object_word(walk, py->code_name);
	if (object_word(walk, py->code_file) == name)
		return PYTHON_OWN_CODE;
	/* Which Python keeps beside a name, once it was looked up. */
	if (!read_word(&hash, name + py->text_hash))
		return 0;
	hash = hash_step(hash, (__u32)object_word(walk, py->code_first_line));
	return hash_step(hash, object_word(walk, py->code_file)) | 1;
}

/* One frame of the list; 1 ends the run. */
static long push_python_frame(__u32 i, void *data)
{
	struct cpu_state *cpu = ((struct python_context *)data)->cpu;
	struct walk *walk = &cpu->walk;
	struct python_walk *in = &walk->in_python;
	const struct python *py = python_of(walk);
	__u64 at = in->next.frame, code, instruction;
	__u32 owner = 0;

	(void)i;
	if (!py || !at)
		return 1;
	if (!has_room(&cpu->body)) {
		in->missing = MISSING_NO_ROOM;
		return 1;
	}
	if (!read_object(walk, at, py->runs == PYTHON_ONE_EACH ? 112 : 80)) {
		in->missing = MISSING_FRAME;
		return 1;
	}
	in->next.frame = object_word(walk, py->frame_previous);
	code = object_word(walk, py->frame_code) & ~7ULL; /* bits below say who counts it */
	instruction = object_word(walk, py->frame_instruction);
	if (py->frame_owner != NO_OFFSET)
		owner = walk->object[py->frame_owner & (OBJECT_BYTES - 1)];
	if (py->runs == PYTHON_SHIM && owner >= OWNED_BY_INTERPRETER) {
		in->is_above = at - in->low >= in->high - in->low;
		return 1;
	}
	if (code != in->code) {
		in->checksum = read_python_code(walk, py, code);
		if (!in->checksum) {
			in->missing = MISSING_CODE;
			return 1;
		}
		in->code = code;
	}
	if (py->runs == PYTHON_ONE_EACH)
		instruction = (__u32)instruction;
	else
		instruction = (instruction - code - py->code_instructions) >> 1;
	if (in->checksum != PYTHON_OWN_CODE)
		push_script_frame(cpu, RUNTIME_PYTHON, code, instruction, in->checksum);
	if (py->runs == PYTHON_ONE_EACH || (py->runs == PYTHON_IS_ENTRY && owner)) {
		if (py->cframe_previous != NO_OFFSET)
			read_word(&in->next.cframe, in->next.cframe + py->cframe_previous);
		return 1;
	}
	return 0;
}

/* Adds the frames of a run that begin at `next`; 0 if those are another run's. */
static __always_inline int push_python_frames(struct cpu_state *cpu, const struct python *py)
{
	struct python_context context = {.cpu = cpu};
	struct python_walk *in = &cpu->walk.in_python;

	if (!in->next.frame)
		return 0;
	/* Its record is on the native stack as soon as its frames are in the list. */
	if (py->runs != PYTHON_SHIM && py->thread_cframe != NO_OFFSET &&
	    in->next.cframe - in->low >= in->high - in->low)
		return 0;
	/* Not on the stack, of which the programs have little. */
	in->hash_before = cpu->walk.hash;
	in->frames_before = cpu->body.user_frames;
	in->is_above = 0;
	bpf_loop(FRAMES_CAPACITY, push_python_frame, &context, 0);
	if (!in->is_above)
		return 1;
	cpu->body.user_frames = in->frames_before;
	cpu->walk.hash = in->hash_before;
	return 0;
}

/* Adds the frames of one run of the loop, whose native frame lies between `low` and `high`. */
__noinline int push_python_run(struct cpu_state *cpu, __u64 low, __u64 high)
{
	const struct python *py;
	struct python_walk *in;
	__u32 i;

	if (!cpu)
		return 0;
	in = &cpu->walk.in_python;
	py = python_of(&cpu->walk);
	if (!py)
		return 0;
	if (!in->is_known) {
		in->is_known = 1;
		in->used = 0;
		in->code = 0;
		find_python_states(&cpu->walk, py);
		in->missing = in->used ? MISSING_NONE : MISSING_THREAD;
	}
	in->low = low;
	in->high = high;
	for (i = 0; i < MAX_PYTHON_STATES && i < in->used && !in->missing; i++) {
		in->next = in->states[i];
		if (push_python_frames(cpu, py)) {
			in->states[i] = in->next;
			break;
		}
	}
	if (in->missing && in->missing != MISSING_NO_ROOM)
		push_word(cpu, script_runtime(RUNTIME_PYTHON) |
				   (__u64)in->missing << SCRIPT_MISSING_SHIFT | SCRIPT_MISSING);
	return 0;
}

/* Adds a string's characters to the record, `at` bytes behind the first; -1 if they cannot be read.
 */
static __always_inline int copy_python_text(struct code_record *record, const struct python *py,
					    __u64 text, __u32 at, __u32 most, __u16 *kind)
{
	__u64 length = 0, bytes;
	__u32 state = 0, width;

	if (!read_word(&length, text + py->text_length) ||
	    bpf_probe_read_user(&state, sizeof(state), (const void *)(text + py->text_hash + 8)))
		return -1;
	state >>= py->text_kind_shift & 31;
	width = state & 7;
	bytes = length > most ? most : length;
	if (width > 1)
		bytes = length > most / 4 ? most / 4 * width : length * width;
	*kind = state & 16 ? 0 : width;
	text += state & 16 ? py->text_ascii : py->text_wide;
	if (bytes > most ||
	    bpf_probe_read_user(&record->text[at & 511], bytes & most, (const void *)text))
		return -1;
	return bytes & most;
}

/* Fills `cpu->code` with what names a code object; 0 if it cannot be read. */
__noinline int describe_python_code(struct cpu_state *cpu, __u64 code)
{
	struct code_record *record;
	const struct python *py;
	__u64 lines, length = 0;
	struct walk *walk;
	int bytes;

	if (!cpu)
		return 0;
	walk = &cpu->walk;
	record = &cpu->code;
	py = python_of(walk);
	if (!py)
		return 0;
	record->checksum = read_python_code(walk, py, code) & SCRIPT_CHECKSUM_MASK;
	record->first_line = object_word(walk, py->code_first_line);
	record->lines = py->lines;
	lines = object_word(walk, py->code_lines);
	bytes = copy_python_text(
	    record, py,
	    object_word(walk, py->code_qualified != NO_OFFSET ? py->code_qualified : py->code_name),
	    0, MAX_CODE_NAME, &record->name_kind);
	if (bytes < 0)
		return 0;
	record->name_bytes = bytes;
	bytes = copy_python_text(record, py, object_word(walk, py->code_file), record->name_bytes,
				 MAX_CODE_FILE, &record->file_kind);
	if (bytes < 0)
		return 0;
	record->file_bytes = bytes;
	/* Without its lines a function still has a name. */
	record->lines_bytes = 0;
	if (!read_word(&length, lines + py->text_length))
		return 1;
	bytes = length > MAX_CODE_LINES ? MAX_CODE_LINES : length;
	if (!bpf_probe_read_user(&record->text[(record->name_bytes + record->file_bytes) & 511],
				 bytes & MAX_CODE_LINES, (const void *)(lines + py->bytes_data)))
		record->lines_bytes = bytes & MAX_CODE_LINES;
	return 1;
}

#endif
