/* udp_flood ADDRESS FLOWS PACKETS PAYLOAD [RATE]: sends PACKETS datagrams round robin to FLOWS ports from 10000 on, as
 * fast as the machine can, or RATE a second. Prints how many were sent. Exits when its standard input is closed, with
 * PACKETS 0. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 64 };

/* Sleep until `sent` packets are due at `rate` a second from `start` on. */
static void pace(const struct timespec *start, unsigned long sent, unsigned long rate)
{
	unsigned long ns = start->tv_nsec + sent % rate * 1000000000UL / rate;
	struct timespec due = {start->tv_sec + sent / rate + ns / 1000000000UL, ns % 1000000000UL};

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
}

int main(int count, char **words)
{
	static struct mmsghdr messages[BATCH];
	static struct sockaddr_in to[BATCH];
	static char payload[65536];
	struct iovec part;
	int number, fd = socket(AF_INET, SOCK_DGRAM, 0);
	unsigned long flows, packets, rate, sent = 0;
	struct timespec start;

	if (count < 5 || count > 6 || fd < 0)
		return 2;
	rate = count > 5 ? strtoul(words[5], 0, 10) : 0;
	clock_gettime(CLOCK_MONOTONIC, &start);
	flows = strtoul(words[2], 0, 10);
	packets = strtoul(words[3], 0, 10);
	part = (struct iovec){payload, strtoul(words[4], 0, 10)};
	for (number = 0; number < BATCH; number++) {
		to[number].sin_family = AF_INET;
		inet_pton(AF_INET, words[1], &to[number].sin_addr);
		messages[number].msg_hdr = (struct msghdr){.msg_name = &to[number], .msg_namelen = sizeof(to[number]),
							   .msg_iov = &part, .msg_iovlen = 1};
	}
	while (!packets || sent < packets) {
		unsigned long want = packets && packets - sent < BATCH ? packets - sent : BATCH;

		for (number = 0; number < (int)want; number++)
			to[number].sin_port = htons(10000 + (sent + number) % flows);
		number = sendmmsg(fd, messages, want, 0);
		if (number < 0 && errno != ENOBUFS && errno != EAGAIN && errno != ECONNREFUSED) {
			perror("sendmmsg");
			return 1;
		}
		if (number > 0)
			sent += number;
		if (rate)
			pace(&start, sent, rate);
		if (!packets) {
			struct pollfd input = {.fd = 0, .events = POLLIN};

			if (poll(&input, 1, 0) > 0)
				break;
		}
	}
	printf("%lu\n", sent);
	return 0;
}
