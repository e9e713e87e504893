/*
 * short_lived N udp|tcp ADDRESS PORT: N processes, 20 at a time, that each take a name of their own, send one datagram or
 * make one connection from a port of their own, and end 50 ms after they began. Each prints its pid, name and port.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void live(int number, int type, struct sockaddr_in *peer)
{
	char name[16], line[80];
	struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(20000 + number)};
	struct timespec rest = {.tv_nsec = 50000000};
	int fd, length;

	snprintf(name, sizeof(name), "brief-%d", number);
	prctl(PR_SET_NAME, name);
	fd = socket(AF_INET, type, 0);
	if (bind(fd, (void *)&own, sizeof(own)))
		_exit(1);
	if (type == SOCK_DGRAM ? sendto(fd, "x", 1, 0, (void *)peer, sizeof(*peer)) != 1 :
				 connect(fd, (void *)peer, sizeof(*peer)))
		_exit(1);
	length = snprintf(line, sizeof(line), "%d %s %d\n", getpid(), name, ntohs(own.sin_port));
	if (write(1, line, length) != length)
		_exit(1);
	nanosleep(&rest, 0);
	_exit(0);
}

int main(int count, char **words)
{
	struct sockaddr_in peer = {.sin_family = AF_INET};
	int status, running = 0, failed = 0;

	if (count != 5)
		return 2;
	inet_pton(AF_INET, words[3], &peer.sin_addr);
	peer.sin_port = htons(atoi(words[4]));
	for (int number = 0; number < atoi(words[1]) || running; ) {
		if (number < atoi(words[1]) && running < 20) {
			if (fork() == 0)
				live(number, strcmp(words[2], "udp") ? SOCK_STREAM : SOCK_DGRAM, &peer);
			number++;
			running++;
			continue;
		}
		wait(&status);
		failed += status != 0;
		running--;
	}
	return failed != 0;
}
