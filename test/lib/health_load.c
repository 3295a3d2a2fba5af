/*
 * health_load.c
 *		Health checks at a steady rate, as load balancers send them.
 *
 *	health_load HOST PORT PATH RATE SECONDS keep|new|resume clear|tls
 *
 * THREADS threads share the rate; each sends when its moment has come and waits for the answer.
 * keep: a connection for each thread; new: one for each request; resume: the same, with the TLS
 * session of the one before.  Prints one line: requests, failures, resumed sessions, p50, p99
 * and greatest latency in microseconds, counted from the moment at which a request was due.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define THREADS		8

typedef struct
{
	int			fd;				/* -1: none */
	SSL		   *ssl;
} Connection;

typedef struct
{
	pthread_t	thread;
	int			number;
	SSL_SESSION *session;
	long		requests;
	long		failures;
	long		resumed;
	int64_t    *latencies;
} Worker;

static struct sockaddr_in server;
static char request[512];
static double rate;
static int	seconds;
static bool keep;
static bool resume;
static SSL_CTX *context;		/* NULL: in the clear */
static int	session_place;

static int64_t
now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * INT64_C(1000000) + ts.tv_nsec / 1000;
}

static int
take_session(SSL *ssl, SSL_SESSION *session)
{
	Worker	   *worker = SSL_get_ex_data(ssl, session_place);

	SSL_SESSION_free(worker->session);
	worker->session = session;
	return 1;
}

static void
disconnect(Connection *c)
{
	if (c->ssl != NULL)
	{
		SSL_shutdown(c->ssl);
		SSL_free(c->ssl);
	}
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	c->ssl = NULL;
}

static bool
connect_to(Connection *c, Worker *worker)
{
	struct timeval limit = {.tv_sec = 5};
	int			on = 1;

	c->fd = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (connect(c->fd, (struct sockaddr *) &server, sizeof(server)) != 0)
		return false;
	if (context == NULL)
		return true;
	c->ssl = SSL_new(context);
	SSL_set_ex_data(c->ssl, session_place, worker);
	if (resume && worker->session != NULL)
		SSL_set_session(c->ssl, worker->session);
	SSL_set_fd(c->ssl, c->fd);
	if (SSL_connect(c->ssl) != 1)
		return false;
	worker->resumed += SSL_session_reused(c->ssl);
	return true;
}

/* One answer: its header, and as much of a body as that announces. */
static bool
ask(Connection *c)
{
	char		answer[8192];
	size_t		used = 0;
	size_t		length = strlen(request);
	int			n = c->ssl ? SSL_write(c->ssl, request, length) : (int) send(c->fd, request, length, MSG_NOSIGNAL);

	if (n != (int) length)
		return false;
	for (;;)
	{
		char	   *end;
		char	   *announced;

		n = c->ssl ? SSL_read(c->ssl, answer + used, sizeof(answer) - 1 - used) :
			(int) recv(c->fd, answer + used, sizeof(answer) - 1 - used, 0);
		if (n <= 0)
			return false;
		used += n;
		answer[used] = '\0';
		end = strstr(answer, "\r\n\r\n");
		announced = strcasestr(answer, "content-length:");
		if (end != NULL && announced != NULL &&
			used >= (size_t) (end + 4 - answer) + strtoul(announced + 15, NULL, 10))
			return strncmp(answer, "HTTP/1.1 200", 12) == 0 || strncmp(answer, "HTTP/1.1 503", 12) == 0;
	}
}

static void *
run(void *arg)
{
	Worker	   *worker = arg;
	Connection	c = {.fd = -1};
	long		total = (long) (rate * seconds / THREADS);
	int64_t		begin = now_us() + worker->number * 1000000 / rate;

	for (long i = 0; i < total; i++)
	{
		int64_t		due = begin + (int64_t) (i * THREADS * 1000000.0 / rate);
		int64_t		left = due - now_us();

		if (left > 0)
			usleep(left);
		worker->requests++;
		if ((c.fd < 0 && !connect_to(&c, worker)) || !ask(&c))
		{
			worker->failures++;
			disconnect(&c);
			continue;
		}
		worker->latencies[i] = now_us() - due;
		if (!keep)
			disconnect(&c);
	}
	disconnect(&c);
	return NULL;
}

static int
compare(const void *a, const void *b)
{
	int64_t		x = *(const int64_t *) a;
	int64_t		y = *(const int64_t *) b;

	return (x > y) - (x < y);
}

int
main(int argc, char **argv)
{
	static Worker workers[THREADS];
	long		each;
	int64_t    *all;
	long		requests = 0,
				failures = 0,
				resumed = 0;

	if (argc != 8)
		return 2;
	signal(SIGPIPE, SIG_IGN);
	server.sin_family = AF_INET;
	server.sin_port = htons(atoi(argv[2]));
	if (inet_pton(AF_INET, argv[1], &server.sin_addr) != 1)
		return 2;
	rate = atof(argv[4]);
	seconds = atoi(argv[5]);
	keep = strcmp(argv[6], "keep") == 0;
	resume = strcmp(argv[6], "resume") == 0;
	snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: %s\r\n\r\n", argv[3], argv[1],
			 keep ? "keep-alive" : "close");
	if (strcmp(argv[7], "tls") == 0)
	{
		context = SSL_CTX_new(TLS_client_method());
		SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
		SSL_CTX_sess_set_new_cb(context, take_session);
		session_place = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL);
	}
	each = (long) (rate * seconds / THREADS);
	all = calloc(each * THREADS + 1, sizeof(int64_t));
	for (int i = 0; i < THREADS; i++)
	{
		workers[i].number = i;
		workers[i].latencies = all + i * each;
		if (all == NULL || pthread_create(&workers[i].thread, NULL, run, &workers[i]) != 0)
			return 1;
	}
	for (int i = 0; i < THREADS; i++)
	{
		pthread_join(workers[i].thread, NULL);
		requests += workers[i].requests;
		failures += workers[i].failures;
		resumed += workers[i].resumed;
	}
	/* Failures have no latency and stand in front. */
	qsort(all, requests, sizeof(int64_t), compare);
	printf("%ld %ld %ld %lld %lld %lld\n", requests, failures, resumed, (long long) all[requests / 2],
		   (long long) all[requests * 99 / 100], (long long) all[requests > 0 ? requests - 1 : 0]);
	return 0;
}
