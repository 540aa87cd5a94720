/* A program of one BPF map and one BPF socket filter, without any library.
 *   filter send N    attaches the filter to a socket; for each line of its input, sends N packets to it
 *   filter load N    loads the filter N times, each with a map of its own
 *   filter storm MS  loads and unloads for so long
 * It prints the id of the (last) filter when it is ready, `done` after the packets, and ends with its
 * input. */
#include <arpa/inet.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long bpf(int command, union bpf_attr *attr)
{
	long result = syscall(SYS_bpf, command, attr, sizeof *attr);

	if (result < 0) {
		perror("bpf");
		exit(1);
	}
	return result;
}

static int load(void)
{
	union bpf_attr map = { .map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 64, .max_entries = 100 };
	int map_fd = bpf(BPF_MAP_CREATE, &map);
	struct bpf_insn code[] = {
		{ .code = 0x18, .dst_reg = 1, .src_reg = BPF_PSEUDO_MAP_FD, .imm = map_fd }, { 0 },
		{ .code = 0xb7, .imm = -1 }, /* keeps the whole packet */
		{ .code = 0x95 },
	};
	union bpf_attr program = { .prog_type = BPF_PROG_TYPE_SOCKET_FILTER, .insns = (unsigned long)code,
				   .insn_cnt = sizeof code / sizeof *code, .license = (unsigned long)"GPL" };

	memcpy(program.prog_name, "keeps_all", 10);
	int fd = bpf(BPF_PROG_LOAD, &program);
	close(map_fd);
	return fd;
}

static unsigned id(int fd)
{
	struct bpf_prog_info info = { 0 };
	union bpf_attr attr = { .info = { .bpf_fd = fd, .info_len = sizeof info, .info = (unsigned long)&info } };

	bpf(BPF_OBJ_GET_INFO_BY_FD, &attr);
	return info.id;
}

int main(int argc, char **argv)
{
	long n = argc > 2 ? atol(argv[2]) : 1;
	char line[16];
	int fd = 0;

	if (!strcmp(argv[1], "storm")) {
		struct timespec start, now;

		clock_gettime(CLOCK_MONOTONIC, &start);
		do {
			close(load());
			clock_gettime(CLOCK_MONOTONIC, &now);
		} while ((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 < n);
		return 0;
	}
	for (long i = 0; i < (strcmp(argv[1], "load") ? 1 : n); i++)
		fd = load();
	int receiver = socket(AF_INET, SOCK_DGRAM, 0), sender = socket(AF_INET, SOCK_DGRAM, 0);
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t length = sizeof to;
	bind(receiver, (struct sockaddr *)&to, length);
	getsockname(receiver, (struct sockaddr *)&to, &length);
	if (setsockopt(receiver, SOL_SOCKET, SO_ATTACH_BPF, &fd, sizeof fd))
		perror("SO_ATTACH_BPF");
	printf("%u\n", id(fd));
	fflush(stdout);
	while (fgets(line, sizeof line, stdin)) {
		for (long i = 0; i < n; i++) {
			sendto(sender, "x", 1, 0, (struct sockaddr *)&to, length);
			recv(receiver, line, 1, MSG_DONTWAIT);
		}
		puts("done");
		fflush(stdout);
	}
	return 0;
}
