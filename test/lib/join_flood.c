/*
 * join_flood.c
 *		Strangers that guess tokens: whole TLS handshakes, each with a JOIN behind it.
 *
 *	join_flood HOST PORT FRAME THREADS HELD
 *
 * FRAME is a file with the bytes to send.  THREADS 0: once, as soon as a byte or the end comes from standard
 * input, after "ready" went to standard output, where what came back follows.
 * Else each thread makes connections one after the other, without end, and lets the last HELD of them
 * stand open; a line with the number so far comes for every hundred.  Ends with its parent.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <openssl/ec.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define MAX_HELD	512

static struct sockaddr_in server;
static char frame[4096];
static size_t frame_length;
static int	held;
static SSL_CTX *context;
static bool once;
static atomic_long done;

/* What a server makes that wants to join. */
static void
make_stranger(void)
{
	EVP_PKEY   *key = EVP_EC_gen("P-256");
	X509	   *cert = X509_new();
	X509_NAME  *name = X509_get_subject_name(cert);

	X509_set_version(cert, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
	X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
	X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
	X509_set_pubkey(cert, key);
	X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *) "quantadb joiner", -1, -1, 0);
	X509_set_issuer_name(cert, name);
	X509_sign(cert, key, EVP_sha256());
	context = SSL_CTX_new(TLS_client_method());
	SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION);
	if (SSL_CTX_use_certificate(context, cert) != 1 || SSL_CTX_use_PrivateKey(context, key) != 1)
		exit(1);
}

static bool
may_send(void)
{
	char		byte;

	if (once && write(STDOUT_FILENO, "ready\n", 6) == 6)
		return read(STDIN_FILENO, &byte, 1) >= 0;
	return !once;
}

/* A connection that has sent the frame; NULL: it did not come so far. */
static SSL *
guess(int *fd)
{
	SSL		   *ssl;
	struct timeval patience = {.tv_sec = 30};

	*fd = socket(AF_INET, SOCK_STREAM, 0);
	if (*fd < 0)
		return NULL;
	setsockopt(*fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	ssl = SSL_new(context);
	SSL_set_fd(ssl, *fd);
	if (connect(*fd, (struct sockaddr *) &server, sizeof(server)) == 0 && SSL_connect(ssl) == 1 && may_send() &&
		SSL_write(ssl, frame, (int) frame_length) == (int) frame_length)
		return ssl;
	SSL_free(ssl);
	close(*fd);
	return NULL;
}

static void *
flood(void *arg)
{
	SSL		   *ssls[MAX_HELD] = {NULL};
	int			fds[MAX_HELD];

	for (int i = 0;; i = (i + 1) % held)
	{
		long		n;

		if (ssls[i] != NULL)
		{
			SSL_free(ssls[i]);
			close(fds[i]);
		}
		ssls[i] = guess(&fds[i]);
		if (ssls[i] == NULL)
			continue;
		n = ++done;
		if (n % 100 == 0)
		{
			printf("%ld\n", n);
			fflush(stdout);
		}
	}
	return arg;
}

int
main(int argc, char **argv)
{
	FILE	   *file = argc == 6 ? fopen(argv[3], "r") : NULL;
	int			threads = argc == 6 ? atoi(argv[4]) : 0;

	held = argc == 6 ? atoi(argv[5]) : 0;
	if (file == NULL || held < 1 || held > MAX_HELD)
		return 2;
	frame_length = fread(frame, 1, sizeof(frame), file);
	fclose(file);
	server.sin_family = AF_INET;
	server.sin_port = htons((uint16_t) atoi(argv[2]));
	inet_pton(AF_INET, argv[1], &server.sin_addr);
	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	make_stranger();
	once = threads == 0;
	if (once)
	{
		char		answer[4096];
		int			fd;
		SSL		   *ssl = guess(&fd);
		int			n = ssl != NULL ? SSL_read(ssl, answer, sizeof(answer)) : 0;

		return n > 0 && fwrite(answer, 1, (size_t) n, stdout) == (size_t) n ? 0 : 1;
	}
	for (int i = 1; i < threads; i++)
	{
		pthread_t	thread;

		pthread_create(&thread, NULL, flood, NULL);
	}
	flood(NULL);
}
