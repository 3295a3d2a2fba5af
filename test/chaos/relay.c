/*
 * relay.c
 *		A bad network between the namespaces of a chaos run.
 *
 *	relay SEED DELAY_MS JITTER_MS LOSS_PERCENT PID=ADDRESS...
 *
 * Makes a tun device "qdbbad" in the network namespace of each process, reads the
 * packets that are routed into it and delivers them to the device of the
 * address that they are for, after DELAY plus a random part of JITTER (so later
 * ones overtake earlier ones), or never.  Says "ready" when the devices are
 * there; with its end they and their routes are gone.
 *
 * The kernel's netem does the same and is not in every kernel.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define MAX_NODES	16
#define MAX_PACKETS	16384			/* more than that under way are lost */
#define MAX_SIZE	2048

typedef struct
{
	int64_t		at_us;
	int			to;
	int			size;
	unsigned char bytes[MAX_SIZE];
} Packet;

static struct pollfd fds[MAX_NODES];
static uint32_t addresses[MAX_NODES];
static int	nodes = 0;
static Packet *heap[MAX_PACKETS];	/* the earliest first */
static int	packets = 0;

static int64_t
now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000000) + ts.tv_nsec / 1000;
}

static void
fail(const char *what)
{
	perror(what);
	exit(1);
}

static int
open_device(const char *pid)
{
	char		path[64];
	struct ifreq request = {0};
	int			namespace;
	int			fd;

	snprintf(path, sizeof(path), "/proc/%s/ns/net", pid);
	namespace = open(path, O_RDONLY);
	if (namespace < 0 || setns(namespace, CLONE_NEWNET) != 0)
		fail(path);
	close(namespace);
	fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK);
	strcpy(request.ifr_name, "qdbbad");
	request.ifr_flags = IFF_TUN | IFF_NO_PI;
	if (fd < 0 || ioctl(fd, TUNSETIFF, &request) != 0)
		fail("/dev/net/tun");
	return fd;
}

static void
push(Packet *packet)
{
	int			i = packets++;

	while (i > 0 && heap[(i - 1) / 2]->at_us > packet->at_us)
	{
		heap[i] = heap[(i - 1) / 2];
		i = (i - 1) / 2;
	}
	heap[i] = packet;
}

static Packet *
pop(void)
{
	Packet	   *first = heap[0];
	Packet	   *last = heap[--packets];
	int			i = 0;

	for (;;)
	{
		int			child = 2 * i + 1;

		if (child + 1 < packets && heap[child + 1]->at_us < heap[child]->at_us)
			child++;
		if (child >= packets || heap[child]->at_us >= last->at_us)
			break;
		heap[i] = heap[child];
		i = child;
	}
	heap[i] = last;
	return first;
}

static void
take(int from, int64_t delay_us, int64_t jitter_us, int loss)
{
	unsigned char bytes[MAX_SIZE];
	ssize_t		size;

	while ((size = read(fds[from].fd, bytes, sizeof(bytes))) > 0)
	{
		uint32_t	destination;
		Packet	   *packet;

		if (size < 20 || bytes[0] >> 4 != 4 || rand() % 100 < loss || packets == MAX_PACKETS)
			continue;
		memcpy(&destination, bytes + 16, 4);
		for (int i = 0; i < nodes; i++)
		{
			if (addresses[i] != destination)
				continue;
			packet = malloc(sizeof(Packet));
			if (packet == NULL)
				break;
			packet->at_us = now_us() + delay_us + (jitter_us > 0 ? rand() % jitter_us : 0);
			packet->to = i;
			packet->size = size;
			memcpy(packet->bytes, bytes, size);
			push(packet);
		}
	}
}

int
main(int argc, char **argv)
{
	int64_t		delay_us;
	int64_t		jitter_us;
	int			loss;

	if (argc < 6 || argc - 5 > MAX_NODES)
		return 2;
	srand(atoi(argv[1]));
	delay_us = atoi(argv[2]) * INT64_C(1000);
	jitter_us = atoi(argv[3]) * INT64_C(1000);
	loss = atoi(argv[4]);
	for (int i = 5; i < argc; i++)
	{
		char	   *address = strchr(argv[i], '=');

		if (address == NULL)
			return 2;
		*address++ = '\0';
		addresses[nodes] = inet_addr(address);
		fds[nodes].fd = open_device(argv[i]);
		fds[nodes++].events = POLLIN;
	}
	printf("ready\n");
	fflush(stdout);
	for (;;)
	{
		int			wait = -1;

		while (packets > 0 && heap[0]->at_us <= now_us())
		{
			Packet	   *packet = pop();

			/* A full or closed device loses it, as a network does. */
			if (write(fds[packet->to].fd, packet->bytes, packet->size) < 0)
				usleep(0);
			free(packet);
		}
		if (packets > 0)
			wait = (heap[0]->at_us - now_us()) / 1000 + 1;
		if (poll(fds, nodes, wait) > 0)
		{
			for (int i = 0; i < nodes; i++)
			{
				if (fds[i].revents & POLLIN)
					take(i, delay_us, jitter_us, loss);
			}
		}
	}
}
