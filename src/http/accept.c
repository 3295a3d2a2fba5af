/*-------------------------------------------------------------------------
 *
 * accept.c
 *		HTTP and HTTPS on one port.
 *
 * The first byte tells: a TLS handshake begins with 22, and no HTTP request
 * does.  So a load balancer on the same host, curl and a browser all find what
 * they expect on port 8432.  In the clear only loopback addresses are answered,
 * unless quantadb.http_tls is off.
 *
 * libmicrohttpd gets sockets that have sent something already; those that
 * have not wait in base/door.c.  It does not count connections per address for
 * sockets that are handed to it, so that is done here.
 *
 * Process: http.
 *
 *-------------------------------------------------------------------------
 */
#include "http/accept.h"

#include <gnutls/gnutls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/base.h"
#include "base/door.h"

#define MAX_CONNECTIONS		256
#define MAX_PER_ADDRESS		128
#define IDLE_SECONDS		10
#define CONNECTION_MEMORY	(16 * 1024)
#define TLS_PRIORITIES		"SECURE128:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"
#define TLS_HANDSHAKE		22
#define LONGEST_PAUSE_MS	16

/* Who has connections. */
typedef struct Client
{
	int			count;			/* 0: entry is free */
	struct sockaddr_storage address;
} Client;

/* The pointer to an entry is a connection's socket context. */
typedef struct Connection
{
	bool		used;
	bool		silent;			/* TLS, and no request has come: it may still
								 * be in its handshake */
	Client	   *client;
} Connection;

static QdbDoor *door = NULL;
static MHD_AccessHandlerCallback handler = NULL;
static MHD_RequestCompletedCallback completed = NULL;
static struct MHD_Daemon *plain = NULL;
static struct MHD_Daemon *secure = NULL;
static uint32 secure_generation = 0;
static bool fds_changed = true;
static Client clients[2 * MAX_CONNECTIONS];
static Connection connections[2 * MAX_CONNECTIONS];
static int	nsilent = 0;
static bool moved = false;		/* in this turn a connection or a request came
								 * or went */
static int	idle_turns = 0;		/* in a row in which nothing happened */

/* libmicrohttpd keeps pointers to these. */
static char cert_pem[32 * 1024];
static char key_pem[QDB_PEM_MAX];
static char ca_pem[16 * 1024];
static gnutls_datum_t ticket_key;	/* this process alone has it; data NULL:
									 * none */

/* The entry of an address; NULL: it has enough connections, or there are too many. */
static Client *
find_client(const struct sockaddr_storage *address)
{
	Client	   *spare = NULL;

	for (int i = 0; i < lengthof(clients); i++)
	{
		if (clients[i].count == 0)
			spare = &clients[i];
		else if (qdb_same_client(&clients[i].address, address))
			return clients[i].count < MAX_PER_ADDRESS ? &clients[i] : NULL;
	}
	if (spare != NULL)
		spare->address = *address;
	return spare;
}

/*
 * Before the handshake: a client that comes again may go on with its session, for a fraction of
 * what certificates cost.  A member's certificate is in the ticket, and judged with each
 * request as ever.
 */
static void
offer_tickets(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);

	if (info != NULL && info->tls_session != NULL && ticket_key.data != NULL)
		(void) gnutls_session_ticket_enable_server((gnutls_session_t) info->tls_session, &ticket_key);
}

/* Sessions of an earlier certificate end with it; without a key there are no tickets. */
static void
renew_ticket_key(void)
{
	gnutls_memset(ticket_key.data, 0, ticket_key.size);
	gnutls_free(ticket_key.data);
	ticket_key = (gnutls_datum_t)
	{
		NULL, 0
	};
	if (gnutls_session_ticket_key_generate(&ticket_key) != 0)
		ticket_key.data = NULL;
}

static void
end_silence(Connection *entry)
{
	if (entry == NULL || !entry->silent)
		return;
	entry->silent = false;
	nsilent--;
}

static void
forget_connection(Connection *entry)
{
	if (entry == NULL)
		return;
	end_silence(entry);
	if (entry->client != NULL && entry->client->count > 0)
		entry->client->count--;
	entry->used = false;
}

static Client *
client_of(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	struct sockaddr_storage address = {0};
	Client	   *client;

	if (info == NULL || info->client_addr == NULL)
		return NULL;
	memcpy(&address, info->client_addr, info->client_addr->sa_family == AF_INET ?
		   sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
	client = find_client(&address);
	if (client != NULL)
		client->count++;
	return client;
}

/* There are entries for more connections than both servers together accept. */
static Connection *
new_connection(struct MHD_Connection *connection)
{
	for (int i = 0; i < lengthof(connections); i++)
	{
		Connection *entry = &connections[i];

		if (entry->used)
			continue;
		entry->used = true;
		entry->client = client_of(connection);
		entry->silent = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION) != NULL;
		nsilent += entry->silent;
		return entry;
	}
	return NULL;
}

static void
note_connection(void *arg, struct MHD_Connection *connection, void **context,
				enum MHD_ConnectionNotificationCode code)
{
	moved = true;
	if (code == MHD_CONNECTION_NOTIFY_CLOSED)
	{
		forget_connection(*context);
		return;
	}
	*context = new_connection(connection);
	offer_tickets(connection);
}

/* The handshake of a connection that asks for something is over. */
static enum MHD_Result
note_request(void *arg, struct MHD_Connection *connection, const char *url, const char *method, const char *version,
			 const char *upload_data, size_t *upload_size, void **state)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);

	moved = true;
	if (info != NULL)
		end_silence(info->socket_context);
	return handler(arg, connection, url, method, version, upload_data, upload_size, state);
}

/* What is encoded is decoded; a zero in it must not be taken for an end, so it becomes a character that no path has. */
static size_t
decode(void *arg, struct MHD_Connection *connection, char *text)
{
	size_t		length = MHD_http_unescape(text);

	for (size_t i = 0; i < length; i++)
		if (text[i] == '\0')
			text[i] = '\1';
	return length;
}

/* What HTTP and HTTPS have in common; more is what one of them has besides. */
static struct MHD_Daemon *
start_daemon(unsigned int flags, struct MHD_OptionItem *more)
{
	return MHD_start_daemon(MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME | flags, 0, NULL, NULL, note_request, NULL,
							MHD_OPTION_CONNECTION_LIMIT, (unsigned int) MAX_CONNECTIONS,
							MHD_OPTION_CONNECTION_TIMEOUT, (unsigned int) IDLE_SECONDS,
							MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t) CONNECTION_MEMORY,
							MHD_OPTION_NOTIFY_CONNECTION, note_connection, NULL,
							MHD_OPTION_NOTIFY_COMPLETED, completed, NULL,
							MHD_OPTION_UNESCAPE_CALLBACK, decode, NULL,
							MHD_OPTION_ARRAY, more,
							MHD_OPTION_END);
}

static struct MHD_Daemon *
start_plain(void)
{
	struct MHD_OptionItem more[] = {{MHD_OPTION_END, 0, NULL}};

	return start_daemon(0, more);
}

static struct MHD_Daemon *
start_secure(void)
{
	struct MHD_OptionItem more[] = {
		{MHD_OPTION_HTTPS_MEM_CERT, 0, cert_pem},
		{MHD_OPTION_HTTPS_MEM_KEY, 0, key_pem},
		{MHD_OPTION_HTTPS_MEM_TRUST, 0, ca_pem},
		{MHD_OPTION_HTTPS_PRIORITIES, 0, TLS_PRIORITIES},
		{MHD_OPTION_END, 0, NULL}
	};

	return start_daemon(MHD_USE_TLS, more);
}

/* Certificates as they are in the file; false: not there, why is filled. */
static bool
read_text(const char *path, char *text, size_t size, char *why, size_t why_size)
{
	FILE	   *file = fopen(path, "r");
	size_t		length;

	if (file == NULL)
	{
		snprintf(why, why_size, "could not open file \"%s\": %s", path, strerror(errno));
		return false;
	}
	length = fread(text, 1, size - 1, file);
	fclose(file);
	text[length] = '\0';
	if (length > 0 && length < size - 1)
		return true;
	snprintf(why, why_size, length == 0 ? "file \"%s\" is empty" : "file \"%s\" is too long", path);
	return false;
}

/* The certificate with the authority behind it, by which a joiner knows us.  False: why is filled. */
static bool
read_identity(char *why, size_t why_size)
{
	bool		company = qdb_company_certificates();
	EVP_PKEY   *key = qdb_load_key(company ? qdb_tls_key_file : QDB_NODE_PEM);
	X509	   *cert;
	int			length = key != NULL ? qdb_key_to_pem(key, key_pem, sizeof(key_pem)) : 0;

	EVP_PKEY_free(key);
	if (company && length > 0)
		return read_text(qdb_tls_cert_file, cert_pem, sizeof(cert_pem), why, why_size) &&
			read_text(qdb_tls_ca_file, ca_pem, sizeof(ca_pem), why, why_size);
	strlcpy(why, qdb_keys_error(), why_size);
	if (length == 0)
		return false;
	cert = qdb_load_certificate(QDB_NODE_PEM);
	length = cert != NULL ? qdb_certificate_to_pem(cert, cert_pem, sizeof(cert_pem)) : 0;
	X509_free(cert);
	strlcpy(why, qdb_keys_error(), why_size);
	if (length == 0 || !read_text(QDB_CA_CERT, ca_pem, sizeof(ca_pem), why, why_size))
		return false;
	strlcpy(why, "the certificates are too long", why_size);
	return strlcpy(cert_pem + length, ca_pem, sizeof(cert_pem) - length) < sizeof(cert_pem) - length;
}

/* Follows the key files: init makes them, renewals replace them. */
void
qdb_http_follow_keys(bool may_restart)
{
	uint32		generation = pg_atomic_read_u32(&qdb_shared->key_generation);
	char		why[QDB_REASON_SIZE] = "";

	if (door == NULL || (secure != NULL && !may_restart))
		return;
	if (generation == secure_generation || (!qdb_shared->member && !qdb_company_certificates()))
		return;
	secure_generation = generation;
	if (qdb_plaintext())
		return;
	if (!read_identity(why, sizeof(why)))
	{
		ereport(LOG, (errmsg("[http] there is no HTTPS: %s", why)));
		return;
	}
	if (secure != NULL)
		MHD_stop_daemon(secure);
	renew_ticket_key();
	secure = start_secure();
	fds_changed = true;
	if (secure == NULL)
		ereport(LOG, (errmsg("[http] could not start HTTPS with this node's certificate")));
}

bool
qdb_http_open(MHD_AccessHandlerCallback answer, MHD_RequestCompletedCallback forget)
{
	static char logged[256] = "";	/* the last failure */
	char		why[256] = "";

	handler = answer;
	completed = forget;
	plain = start_plain();
	if (plain == NULL)
	{
		ereport(LOG, (errmsg("[http] could not start the HTTP server")));
		return false;
	}
	door = qdb_door_open(qdb_listen_addresses, qdb_http_port, QDB_DOOR_RAW, why, sizeof(why));
	if (door == NULL)
	{
		if (strcmp(why, logged) != 0)
			ereport(LOG,
					(errmsg("[http] %s", why),
					 errhint("Is another server running on that port? Set quantadb.http_port or quantadb.listen_addresses, and restart; it is tried again each second.")));
		strlcpy(logged, why, sizeof(logged));
		qdb_http_close();
		return false;
	}
	if (logged[0] != '\0')
		ereport(LOG, (errmsg("[http] Listening on port %d", qdb_http_port)));
	logged[0] = '\0';
	fds_changed = true;
	qdb_http_follow_keys(true);
	return true;
}

void
qdb_http_close(void)
{
	if (plain != NULL)
		MHD_stop_daemon(plain);
	if (secure != NULL)
		MHD_stop_daemon(secure);
	plain = secure = NULL;
	secure_generation = 0;
	qdb_door_close(door);
	door = NULL;
	fds_changed = true;
}

/* Plain HTTP from another host: says why not, as far as one write goes. */
static void
turn_away(int fd)
{
	char		answer[512];
	char		body[256];
	int			length;

	length = snprintf(body, sizeof(body), "{\"error\": \"HTTP in the clear is answered on loopback addresses only\", \"hint\": \"%s\"}\n",
					  secure != NULL ? "Use https, or set quantadb.http_tls to off." :
					  "https is answered when this server is a member of a cluster.");
	length = snprintf(answer, sizeof(answer),
					  "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
					  length, body);
	(void) send(fd, answer, length, MSG_NOSIGNAL | MSG_DONTWAIT);
	(void) shutdown(fd, SHUT_WR);
	close(fd);
}

static void
hand_over(int fd, const struct sockaddr_storage *address, socklen_t length)
{
	unsigned char first = 0;
	int			on = 1;
	bool		tls = recv(fd, &first, 1, MSG_PEEK | MSG_DONTWAIT) == 1 && first == TLS_HANDSHAKE;

	/*
	 * Or what follows a ticket or a header waits for an ack, which may take
	 * 40 ms.
	 */
	(void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (find_client(address) == NULL || (tls && secure == NULL))
		close(fd);
	else if (tls)
		(void) MHD_add_connection(secure, fd, (const struct sockaddr *) address, length);
	else if (qdb_http_tls && !qdb_is_loopback((const struct sockaddr *) address))
		turn_away(fd);
	else
		(void) MHD_add_connection(plain, fd, (const struct sockaddr *) address, length);
}

void
qdb_http_turn(bool woken)
{
	struct sockaddr_storage address;
	socklen_t	length;
	int			fd;

	if (door == NULL)
		return;
	qdb_door_turn(door);
	moved = woken;
	while ((fd = qdb_door_take_socket(door, &address, &length)) >= 0)
		hand_over(fd, &address, length);
	(void) MHD_run(plain);
	if (secure != NULL)
		(void) MHD_run(secure);
	idle_turns = moved ? 0 : idle_turns + 1;
}

static int
epoll_fd(struct MHD_Daemon *daemon)
{
	const union MHD_DaemonInfo *info =
	daemon != NULL ? MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_EPOLL_FD) : NULL;

	return info ? info->epoll_fd : -1;
}

int
qdb_http_fds(int *fds, bool *changed)
{
	int			n = 0;
	int			all[QDB_HTTP_MAX_FDS] = {door != NULL ? qdb_door_fd(door) : -1, epoll_fd(plain), epoll_fd(secure)};

	for (int i = 0; i < QDB_HTTP_MAX_FDS; i++)
	{
		if (all[i] >= 0)
			fds[n++] = all[i];
	}
	*changed = fds_changed;
	fds_changed = false;
	return n;
}

/*
 * libmicrohttpd takes a connection in its handshake for one that can be read all the time, and
 * wants to run again at once until the client has answered: without this, one that never
 * does costs a core.  So turns in which nothing happens are followed by pauses.  What the client
 * sends ends them: it shows at the descriptor that is waited for.
 */
static long
pause_ms(void)
{
	if (nsilent == 0 || idle_turns == 0)
		return 0;
	return idle_turns > 4 ? LONGEST_PAUSE_MS : 1 << (idle_turns - 1);
}

long
qdb_http_timeout(long limit)
{
	struct MHD_Daemon *daemons[2] = {plain, secure};

	for (int i = 0; i < 2; i++)
	{
		MHD_UNSIGNED_LONG_LONG wanted;

		if (daemons[i] != NULL && MHD_get_timeout(daemons[i], &wanted) == MHD_YES &&
			wanted < (MHD_UNSIGNED_LONG_LONG) limit)
			limit = daemons[i] == secure ? Max((long) wanted, Min(pause_ms(), limit)) : (long) wanted;
	}
	return limit;
}

/* The client's certificate, if its chain leads to our authority. */
static X509 *
client_certificate(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);
	gnutls_session_t session = info != NULL ? (gnutls_session_t) info->tls_session : NULL;
	const gnutls_datum_t *chain;
	unsigned int status = 1;
	unsigned int n = 0;
	const unsigned char *der;

	if (session == NULL || gnutls_certificate_verify_peers2(session, &status) != 0 || status != 0)
		return NULL;
	chain = gnutls_certificate_get_peers(session, &n);
	if (chain == NULL || n == 0)
		return NULL;
	der = chain[0].data;
	return d2i_X509(NULL, &der, chain[0].size);
}

bool
qdb_http_member_certificate(struct MHD_Connection *connection, char *who, size_t who_size)
{
	QdbPeerCert peer = {.cert = client_certificate(connection)};
	const char *why = "no member's certificate was shown";
	const QdbMember *member = NULL;
	EVP_PKEY   *key = peer.cert != NULL ? X509_get0_pubkey(peer.cert) : NULL;

	if (key != NULL && qdb_hash_key(key, peer.key_hash))
	{
		(void) qdb_read_cert_name(peer.cert, &peer.name);
		LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
		member = qdb_company_certificates() ? qdb_member_by_name(&qdb_shared->state, peer.name.name) :
			qdb_member_by_id(&qdb_shared->state, peer.name.member);
		if (member != NULL)
		{
			why = qdb_judge_certificate(&qdb_shared->state, &peer, qdb_shared->identity.cluster_id,
										member->id, member->incarnation, member->name);
			snprintf(who, who_size, "member %s", member->name);
		}
		LWLockRelease(qdb_shared->state_lock);
	}
	X509_free(peer.cert);
	if (member != NULL && why == NULL && !qdb_plaintext())
		return true;
	strlcpy(who, why != NULL ? why : "connections are in the clear", who_size);
	return false;
}
