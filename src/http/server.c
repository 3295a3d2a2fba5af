/*-------------------------------------------------------------------------
 *
 * server.c
 *		The HTTP worker: libmicrohttpd inside our own event loop.
 *
 * libmicrohttpd runs without threads: its epoll descriptor is one more socket
 * in our wait set, and MHD_run is called when it is readable or a timeout of
 * its own is due.  Its callbacks may not be left by an error (longjmp would
 * skip its cleanup), so the handler catches all of them and answers 500.
 *
 * Process: http.  Runs on every server with the library loaded, member or not;
 * it reads shared memory and changes nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "http/http.h"

#include <microhttpd.h>
#include <unistd.h>

#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/guc.h"
#include "utils/wait_event.h"

#include "base/base.h"
#include "base/channel.h"

#define MAX_LISTEN			8
#define MAX_CONNECTIONS		256
#define MAX_PER_ADDRESS		64
#define IDLE_SECONDS		10
#define CONNECTION_MEMORY	(16 * 1024)
#define RETRY_MS			1000

static struct MHD_Daemon *daemons[MAX_LISTEN];
static int	ndaemons = 0;
static MemoryContext request_context;

/* Static text: nothing is allocated where memory may be what is missing. */
static enum MHD_Result
send_failure(struct MHD_Connection *connection)
{
	static char text[] = "{\"error\": \"internal error; see the server log\"}\n";
	struct MHD_Response *response;
	enum MHD_Result result;

	response = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_PERSISTENT);
	if (response == NULL)
		return MHD_NO;
	MHD_add_response_header(response, "Content-Type", "application/json");
	result = MHD_queue_response(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result
send_answer(struct MHD_Connection *connection, const QdbHttpAnswer *answer)
{
	struct MHD_Response *response;
	enum MHD_Result result;

	response = MHD_create_response_from_buffer(answer->body.len, answer->body.data, MHD_RESPMEM_MUST_COPY);
	if (response == NULL)
		return MHD_NO;
	MHD_add_response_header(response, "Content-Type", answer->content_type);
	MHD_add_response_header(response, "Cache-Control", "no-store");
	MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
	if (answer->allow != NULL)
		MHD_add_response_header(response, "Allow", answer->allow);
	result = MHD_queue_response(connection, answer->status, response);
	MHD_destroy_response(response);
	return result;
}

/* False: an error was caught and logged. */
static bool
route_safely(const QdbHttpRequest *request, QdbHttpAnswer *answer)
{
	volatile bool ok = true;

	PG_TRY();
	{
		qdb_route_request(request, answer);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(request_context);
		EmitErrorReport();
		FlushErrorState();
		LWLockReleaseAll();
		ok = false;
	}
	PG_END_TRY();
	return ok;
}

static enum MHD_Result
handle_request(void *arg, struct MHD_Connection *connection, const char *url,
			   const char *method, const char *version, const char *upload_data,
			   size_t *upload_size, void **state)
{
	static int	seen;
	MemoryContext old_context;
	QdbHttpRequest request = {.method = method,.path = url};
	QdbHttpAnswer answer = {.content_type = "application/json"};
	const char *accept;
	enum MHD_Result result;

	/* First call: headers only.  Then any body, which is thrown away. */
	if (*state == NULL)
	{
		*state = &seen;
		return MHD_YES;
	}
	if (*upload_size != 0)
	{
		*upload_size = 0;
		return MHD_YES;
	}

	accept = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Accept");
	request.wants_html = accept != NULL && strstr(accept, "text/html") != NULL;
	request.lag = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "lag");
	request.min_lsn = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "min_lsn");

	old_context = MemoryContextSwitchTo(request_context);
	if (route_safely(&request, &answer))
		result = send_answer(connection, &answer);
	else
		result = send_failure(connection);
	MemoryContextSwitchTo(old_context);
	MemoryContextReset(request_context);
	return result;
}

/* The library gives up: end this worker, not the whole server. */
static void
handle_panic(void *arg, const char *file, unsigned int line, const char *reason)
{
	elog(LOG, "[http] internal error of libmicrohttpd: %s", reason ? reason : "unknown");
	proc_exit(1);
}

/* One daemon per listening socket; true when all of them run. */
static bool
start_server(void)
{
	int			fds[MAX_LISTEN];
	char		why[256] = "";
	int			n = qdb_listen(qdb_listen_addresses, qdb_http_port, fds, MAX_LISTEN, why, sizeof(why));

	if (n <= 0)
	{
		ereport(LOG,
				(errmsg("[http] could not listen on port %d: %s", qdb_http_port, why),
				 errhint("Is another server running on that port? Set quantadb.http_port or quantadb.listen_addresses; trying again each second.")));
		return false;
	}
	for (int i = 0; i < n; i++)
	{
		struct MHD_Daemon *daemon;

		daemon = MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL,
								  handle_request, NULL,
								  MHD_OPTION_LISTEN_SOCKET, fds[i],
								  MHD_OPTION_CONNECTION_LIMIT, (unsigned int) MAX_CONNECTIONS,
								  MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned int) MAX_PER_ADDRESS,
								  MHD_OPTION_CONNECTION_TIMEOUT, (unsigned int) IDLE_SECONDS,
								  MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t) CONNECTION_MEMORY,
								  MHD_OPTION_END);
		if (daemon == NULL)
		{
			ereport(LOG,
					(errmsg("[http] could not start the HTTP server on port %d", qdb_http_port)));
			close(fds[i]);
			continue;
		}
		daemons[ndaemons++] = daemon;
	}
	return ndaemons > 0;
}

static int
epoll_fd(struct MHD_Daemon *daemon)
{
	const union MHD_DaemonInfo *info = MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_EPOLL_FD);

	return info ? info->epoll_fd : -1;
}

static WaitEventSet *
make_wait_set(void)
{
	WaitEventSet *set = CreateWaitEventSet(TopMemoryContext, MAX_LISTEN + 2);

	AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	for (int i = 0; i < ndaemons; i++)
	{
		int			fd = epoll_fd(daemons[i]);

		if (fd >= 0)
			AddWaitEventToSet(set, WL_SOCKET_READABLE, fd, NULL, NULL);
	}
	return set;
}

/* How long to sleep: until libmicrohttpd wants to look at its connections. */
static long
next_timeout(void)
{
	long		timeout = RETRY_MS;

	for (int i = 0; i < ndaemons; i++)
	{
		MHD_UNSIGNED_LONG_LONG wanted;

		if (MHD_get_timeout(daemons[i], &wanted) == MHD_YES && wanted < (MHD_UNSIGNED_LONG_LONG) timeout)
			timeout = (long) wanted;
	}
	return timeout;
}

void
qdb_http_main(Datum arg)
{
	WaitEventSet *set;
	WaitEvent	event;

	qdb_worker_begin(&qdb_shared->http_latch, &qdb_shared->http_pid);
	request_context = AllocSetContextCreate(TopMemoryContext, "quantadb http request", ALLOCSET_DEFAULT_SIZES);
	MHD_set_panic_func(handle_panic, NULL);
	(void) start_server();
	set = make_wait_set();

	while (!qdb_worker_shutdown_requested())
	{
		bool		ticked = WaitEventSetWait(set, next_timeout(), &event, 1, PG_WAIT_EXTENSION) == 0;

		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		for (int i = 0; i < ndaemons; i++)
			(void) MHD_run(daemons[i]);
		if (ndaemons == 0 && ticked && start_server())
		{
			FreeWaitEventSet(set);
			set = make_wait_set();
		}
	}
	for (int i = 0; i < ndaemons; i++)
		MHD_stop_daemon(daemons[i]);
	proc_exit(0);
}
