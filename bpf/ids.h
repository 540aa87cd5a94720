/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * Process and thread ids as user space has them. Where the recorder runs in a PID namespace, as in
 * a container, /proc and the side-band tell ids of that namespace, and the kernel's own are others.
 * A task has an id in its namespace and in each one above; in all others it has none, and all tasks
 * outside of ours are OUTSIDE_ID.
 */
#ifndef IDS_H
#define IDS_H

#define MAX_PID_LEVELS 8 /* the kernel nests 32 */

const volatile __u32 pid_namespace = 0; /* inode of ours; 0: the first */

static __always_inline __u32 id_in_namespace(struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	struct pid_namespace *namespace;

	/* A task that is being freed has none any more. */
	if (!pid)
		return OUTSIDE_ID;
	for (unsigned int level = 0; level < MAX_PID_LEVELS; level++) {
		if (level > BPF_CORE_READ(pid, level))
			break;
		if (bpf_core_read(&namespace, sizeof(namespace), &pid->numbers[level].ns))
			break;
		if (BPF_CORE_READ(namespace, ns.inum) == pid_namespace)
			return BPF_CORE_READ(pid, numbers[level].nr);
	}
	return OUTSIDE_ID;
}

static __always_inline __u32 tid_of(struct task_struct *task)
{
	return pid_namespace ? id_in_namespace(task) : READ(task, pid);
}

static __always_inline __u32 tgid_of(struct task_struct *task)
{
	return pid_namespace ? id_in_namespace(READ(task, group_leader)) : READ(task, tgid);
}

#endif
