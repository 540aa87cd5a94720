/*
 * Runs a program as another user with some capabilities and no others, as systemd's AmbientCapabilities do.
 *
 * Usage: with_capabilities UID NAME,NAME,...|none PROGRAM ARGS...   names as in bpf,perfmon
 */
#define _GNU_SOURCE
#include <grp.h>
#include <linux/capability.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Some systems' headers are older than the last three. */
static const struct {
	const char *name;
	int number;
} known[] = {
	{ "dac_read_search", 2 }, { "setgid", 6 },     { "setuid", 7 },
	{ "sys_ptrace", 19 },	  { "sys_admin", 21 }, { "syslog", 34 },
	{ "perfmon", 38 },	  { "bpf", 39 },       { "checkpoint_restore", 40 },
};

static uint64_t parse(char *list)
{
	uint64_t set = 0;

	for (char *name = strtok(list, ","); name; name = strtok(NULL, ",")) {
		size_t at = 0;

		if (!strcmp(name, "none"))
			continue;
		while (at < sizeof(known) / sizeof(*known) && strcmp(known[at].name, name))
			at++;
		if (at == sizeof(known) / sizeof(*known)) {
			fprintf(stderr, "no capability %s is known\n", name);
			exit(2);
		}
		set |= 1ULL << known[at].number;
	}
	return set;
}

static void must(int error, const char *what)
{
	if (error) {
		perror(what);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];
	uint64_t set;
	uid_t uid;

	if (argc < 4) {
		fprintf(stderr, "usage: %s UID NAME,NAME,...|none PROGRAM ARGS...\n", argv[0]);
		return 2;
	}
	uid = strtoul(argv[1], NULL, 10);
	set = parse(argv[2]);
	/* Before the user changes, for it takes CAP_SETPCAP. Numbers that the kernel lacks are refused. */
	for (int i = 0; i < 64; i++)
		if (!(set >> i & 1))
			prctl(PR_CAPBSET_DROP, i, 0, 0, 0);
	must(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0), "PR_SET_KEEPCAPS");
	must(setgroups(0, NULL), "setgroups");
	must(setgid(uid), "setgid");
	must(setuid(uid), "setuid");
	for (int i = 0; i < 2; i++) {
		uint32_t half = set >> (32 * i);

		data[i] = (struct __user_cap_data_struct){ half, half, half };
	}
	must(syscall(SYS_capset, &header, data), "capset");
	for (int i = 0; i < 64; i++)
		if (set >> i & 1)
			must(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0, 0), "PR_CAP_AMBIENT_RAISE");
	execvp(argv[3], argv + 3);
	perror(argv[3]);
	return 127;
}
