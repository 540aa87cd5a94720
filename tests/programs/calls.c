/* Calls of one kind, exactly so many: calls getppid N, or calls ADDRESS N for UDP packets to it. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9) };
	long n = argc > 2 ? atol(argv[2]) : 0;
	int packets = strcmp(argv[1], "getppid"), fd = socket(AF_INET, SOCK_DGRAM, 0);

	inet_pton(AF_INET, argv[1], &to.sin_addr);
	for (; n > 0; n--)
		if (packets)
			/* A full queue refuses some. */
			while (sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof to) != 1)
				usleep(100);
		else
			syscall(SYS_getppid);
	return 0;
}
