// SPDX-License-Identifier: (GPL-2.0 OR MIT)
/*
 * Cgroups that come, and processes that come to the one that is recorded. A container may be over
 * before anybody has looked for it in the file system, so each is told at its beginning.
 */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096); /* set by user space */
} cgroup_events SEC(".maps");

const struct cgroup_event *abi_cgroup_event __attribute__((unused));

/* What finds no room here is looked for in the file system when it is sampled. */
SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(cgroup_made, struct cgroup *cgroup, const char *path)
{
	__u32 hierarchy = BPF_CORE_READ(cgroup, root, hierarchy_id);
	struct cgroup_event *event;

	if (hierarchy && hierarchy != cgroup_hierarchy)
		return 0;
	event = bpf_ringbuf_reserve(&cgroup_events, sizeof(*event), 0);
	if (!event)
		return 0;
	event->time_ns = bpf_ktime_get_ns();
	event->id = BPF_CORE_READ(cgroup, kn, id);
	event->is_v1 = hierarchy != 0;
	event->tgid = 0;
	if (bpf_probe_read_kernel_str(event->path, sizeof(event->path), path) < 0)
		event->path[0] = 0;
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	return 0;
}

static __always_inline void tell_joined(struct task_struct *task)
{
	struct cgroup_event *event = bpf_ringbuf_reserve(&cgroup_events, sizeof(*event), 0);
	struct cpu_state *cpu;

	if (!event) {
		cpu = bpf_map_lookup_elem(&cpu_states, &zero);
		if (cpu)
			__sync_fetch_and_add(&cpu->follow_failed, 1);
		return;
	}
	event->time_ns = bpf_ktime_get_ns();
	event->id = 0;
	event->is_v1 = 0;
	event->tgid = tgid_of(task);
	event->path[0] = 0;
	bpf_ringbuf_submit(event, BPF_RB_FORCE_WAKEUP);
}

SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(cgroup_joined, struct cgroup *cgroup, const char *path, struct task_struct *task)
{
	if (in_cgroup(task))
		tell_joined(task);
	return 0;
}

/* By clone3(2) a child comes to another cgroup than its parent's. */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(cgroup_born_into, struct task_struct *parent, struct task_struct *child)
{
	if (child->tgid != parent->tgid && in_cgroup(child) && !in_cgroup(parent))
		tell_joined(child);
	return 0;
}
