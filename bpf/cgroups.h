/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * In which cgroup a task is: of the v2 hierarchy and, where the machine has such, of one v1
 * controller's. Each hierarchy has ids of its own, the inode numbers of its directories. User space
 * gives them their paths.
 */
#ifndef CGROUPS_H
#define CGROUPS_H

#define NO_SUBSYSTEM 0xffffffffU
#define MAX_CGROUP_LEVELS 32
#define LEVEL_UNKNOWN 0xffffffffU

/* The v1 controller whose cgroups are looked at: its number in this kernel, and its hierarchy's. */
const volatile __u32 cgroup_subsystem = NO_SUBSYSTEM;
const volatile __u32 cgroup_hierarchy = 0;
/* Only tasks in this cgroup and below it. */
const volatile __u64 cgroup_id = 0; /* 0: any */
const volatile bool cgroup_is_v1 = false;

/* How deep that cgroup lies below its root. In a cgroup namespace user space cannot tell, so the
 * first task that is found below it does. */
__u32 cgroup_level = LEVEL_UNKNOWN;

static __always_inline struct cgroup *v2_cgroup_of(struct task_struct *task)
{
	return BPF_CORE_READ(task, cgroups, dfl_cgrp);
}

static __always_inline struct cgroup *v1_cgroup_of(struct task_struct *task)
{
	struct css_set *set = BPF_CORE_READ(task, cgroups);
	struct cgroup_subsys_state *state = NULL;

	if (cgroup_subsystem == NO_SUBSYSTEM ||
	    bpf_core_read(&state, sizeof(state), &set->subsys[cgroup_subsystem]))
		return NULL;
	return BPF_CORE_READ(state, cgroup);
}

/* For each sample: so it takes no call of a helper where the kernel knows the task's type. */
static __always_inline void read_cgroups(struct task_struct *task, struct cgroup_ids *ids)
{
	ids->v2 = READ(task, cgroups, dfl_cgrp, kn, id);
	ids->v1 = 0;
	if (cgroup_subsystem == NO_SUBSYSTEM)
		return;
	if (HAS_HELPER(get_current_task_btf))
		ids->v1 = task->cgroups->subsys[cgroup_subsystem]->cgroup->kn->id;
	else
		ids->v1 = BPF_CORE_READ(v1_cgroup_of(task), kn, id);
}

static __always_inline __u64 ancestor_id(struct cgroup *cgroup, __u32 level)
{
	struct cgroup *ancestor = NULL;
	__u64 id = 0;

	if (bpf_core_field_exists(cgroup->ancestors)) {
		bpf_core_read(&ancestor, sizeof(ancestor), &cgroup->ancestors[level]);
		return BPF_CORE_READ(ancestor, kn, id);
	}
	bpf_core_read(&id, sizeof(id), &((struct cgroup___ids *)cgroup)->ancestor_ids[level]);
	return id;
}

/* Whether a task is in the cgroup that is recorded, or below it. */
static __noinline bool in_cgroup(struct task_struct *task)
{
	struct cgroup *cgroup = cgroup_is_v1 ? v1_cgroup_of(task) : v2_cgroup_of(task);
	__u32 level, known = cgroup_level;

	if (!cgroup)
		return false;
	level = BPF_CORE_READ(cgroup, level);
	if (known != LEVEL_UNKNOWN)
		return known <= level && ancestor_id(cgroup, known) == cgroup_id;
	for (__u32 at = 0; at < MAX_CGROUP_LEVELS; at++) {
		if (at > level)
			break;
		if (ancestor_id(cgroup, at) == cgroup_id) {
			cgroup_level = at;
			return true;
		}
	}
	return false;
}

#endif
