/*-------------------------------------------------------------------------
 *
 * server.c
 *		The HTTP worker: libmicrohttpd inside our own event loop.
 *
 * libmicrohttpd runs without threads: its epoll descriptors are more sockets
 * in our wait set, and MHD_run is called when they are readable or a timeout of
 * its own is due (accept.c).  Its callbacks may not be left by an error (longjmp would
 * skip its cleanup), so the handler catches all of them and answers 500.
 *
 * A control call has to wait for the coordinator: its connection is suspended
 * and looked at again every few milliseconds, while others are served.
 *
 * Process: http.  Runs on every server with the library loaded, member or not.
 * It reads shared memory; what it wants changed goes through the mailbox.
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
#include "http/accept.h"

#define RETRY_MS			1000
#define POLL_MS				10

static MemoryContext request_context;
static MemoryContext call_context;

/* One request of a connection, from its header to its end. */
typedef struct Call
{
	QdbControl	control;
	struct MHD_Connection *connection;	/* while it waits */
	struct Call *next;
	size_t		length;
	bool		too_long;
	char		body[QDB_HTTP_MAX_BODY + 1];
} Call;

static Call *waiting = NULL;	/* suspended */
static long webhooks_ms = RETRY_MS; /* when they want to run again */

/* Stands for all calls that only read: they need nothing between two steps. */
static Call reading = {.control = {.slot = -1}};

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
	if (answer->status != MHD_HTTP_NO_CONTENT)
		MHD_add_response_header(response, "Content-Type", answer->content_type);
	MHD_add_response_header(response, "Cache-Control", "no-store");
	MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
	if (answer->allow != NULL)
		MHD_add_response_header(response, "Allow", answer->allow);
	if (answer->policy != NULL)
	{
		MHD_add_response_header(response, "Content-Security-Policy", answer->policy);
		MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
	}
	if (answer->closes)
		MHD_add_response_header(response, "Connection", "close");
	if (answer->challenge)
		MHD_add_response_header(response, "WWW-Authenticate", "Bearer realm=\"quantadb\"");
	result = MHD_queue_response(connection, answer->status, response);
	MHD_destroy_response(response);
	return result;
}

/* What of a request's handling is wrapped below. */
typedef enum Step
{
	STEP_HEADER,				/* may it have a body? */
	STEP_ROUTE,
	STEP_POLL
} Step;

/* Runs a step; its truth in *result.  False: an error was caught and logged. */
static pg_noinline bool
run_safely(Step step, const QdbHttpRequest *request, QdbHttpAnswer *answer, QdbControl *control,
		   bool *result)
{
	volatile bool ok = true;
	volatile bool truth = false;

	PG_TRY();
	{
		initStringInfo(&answer->body);
		if (step == STEP_HEADER)
			truth = qdb_route_takes_body(request, answer);
		else if (step == STEP_ROUTE)
			truth = qdb_route_request(request, answer, control);
		else
			truth = qdb_control_poll(control, answer);
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
	*result = truth;
	return ok;
}

static int
method_of(const char *method)
{
	static const struct
	{
		const char *name;
		int			method;
	}			methods[] = {
		{"GET", QDB_METHOD_GET}, {"HEAD", QDB_METHOD_GET}, {"POST", QDB_METHOD_POST},
		{"PATCH", QDB_METHOD_PATCH}, {"DELETE", QDB_METHOD_DELETE}, {"OPTIONS", QDB_METHOD_OPTIONS}
	};

	for (int i = 0; i < lengthof(methods); i++)
	{
		if (strcmp(methods[i].name, method) == 0)
			return methods[i].method;
	}
	return QDB_METHOD_OTHER;
}

/* Unknown ones are let pass: some clients add one against caches. */
static enum MHD_Result
take_argument(void *arg, enum MHD_ValueKind kind, const char *key, const char *value)
{
	QdbHttpRequest *request = arg;
	const char **field;

	if (pg_strcasecmp(key, "lag") == 0)
		field = &request->lag;
	else if (pg_strcasecmp(key, "min_lsn") == 0)
		field = &request->min_lsn;
	else if (pg_strcasecmp(key, "node") == 0)
		field = &request->node;
	else
		return MHD_YES;
	if (*field != NULL)
		request->repeated = key;
	*field = value != NULL ? value : "";
	return MHD_YES;
}

static void
fill_request(QdbHttpRequest *request, struct MHD_Connection *connection, const char *url,
			 const char *method, const Call *call)
{
	static char who[QDB_NAME_SIZE + 32];
	const char *accept = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Accept");

	memset(request, 0, sizeof(*request));
	request->method = method_of(method);
	request->path = url;
	request->body = call != NULL ? call->body : "";
	request->wants_html = accept != NULL && strstr(accept, "text/html") != NULL;
	if (request->method != QDB_METHOD_GET && qdb_http_member_certificate(connection, who, sizeof(who)))
		request->member = who;
	request->authorization = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Authorization");
	(void) MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, take_argument, request);
}

static enum MHD_Result
answer_or_fail(struct MHD_Connection *connection, bool ok, const QdbHttpAnswer *answer)
{
	return ok ? send_answer(connection, answer) : send_failure(connection);
}

static enum MHD_Result
refuse_length(struct MHD_Connection *connection)
{
	QdbHttpAnswer answer = {.content_type = "application/json"};

	initStringInfo(&answer.body);
	qdb_answer_error(&answer, 413, "the body is too long",
					 psprintf("The limit is %d bytes.", QDB_HTTP_MAX_BODY), NULL);
	return send_answer(connection, &answer);
}

/* How often the header says where the body ends; more than once is once too often. */
static enum MHD_Result
count_framing(void *arg, enum MHD_ValueKind kind, const char *name, const char *value)
{
	int		   *n = arg;

	if (strpbrk(name, " \t") != NULL)
		*n += 2;				/* one that others may read as either */
	else if (pg_strcasecmp(name, "Content-Length") == 0)
		*n += 1;
	else if (pg_strcasecmp(name, "Transfer-Encoding") == 0)
		*n += value != NULL && pg_strcasecmp(value, "chunked") == 0 ? 1 : 2;
	return MHD_YES;
}

/*
 * A proxy may believe the other one of two ends, and hand over the rest as somebody else's
 * request: nothing that follows in this connection is read.
 */
static enum MHD_Result
refuse_framing(struct MHD_Connection *connection)
{
	QdbHttpAnswer answer = {.content_type = "application/json",.closes = true};

	initStringInfo(&answer.body);
	qdb_answer_error(&answer, 400, "the header does not say where the body ends",
					 "It must have one Content-Length, or \"Transfer-Encoding: chunked\".", NULL);
	return send_answer(connection, &answer);
}

/*
 * Headers only.  A body is read for control calls that may be made, and no
 * more of it than its limit; all others are answered without looking at it.
 */
static enum MHD_Result
begin_call(struct MHD_Connection *connection, const QdbHttpRequest *request, Call **call)
{
	const char *length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Content-Length");
	const char *chunked = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Transfer-Encoding");
	QdbHttpAnswer answer = {.content_type = "application/json"};
	int			nframing = 0;
	bool		takes_body;
	bool		ok;

	(void) MHD_get_connection_values(connection, MHD_HEADER_KIND, count_framing, &nframing);
	if (nframing > 1)
		return refuse_framing(connection);
	if (length != NULL || chunked != NULL)
	{
		ok = run_safely(STEP_HEADER, request, &answer, NULL, &takes_body);
		if (!ok || (!takes_body && answer.status != 0))
			return answer_or_fail(connection, ok, &answer);
		if (length != NULL && strtoul(length, NULL, 10) > QDB_HTTP_MAX_BODY)
			return refuse_length(connection);
	}
	if (request->method == QDB_METHOD_GET || request->method == QDB_METHOD_OPTIONS)
	{
		*call = &reading;
		return MHD_YES;
	}
	*call = MemoryContextAllocExtended(call_context, sizeof(Call), MCXT_ALLOC_NO_OOM | MCXT_ALLOC_ZERO);
	if (*call == NULL)
		return MHD_NO;
	(*call)->control.slot = -1;
	return MHD_YES;
}

static void
add_waiting(Call *call, struct MHD_Connection *connection)
{
	call->connection = connection;
	call->next = waiting;
	waiting = call;
	MHD_suspend_connection(connection);
}

static enum MHD_Result
route_call(struct MHD_Connection *connection, const QdbHttpRequest *request, Call *call)
{
	QdbHttpAnswer answer = {.content_type = "application/json"};
	bool		waits;
	bool		ok = run_safely(STEP_ROUTE, request, &answer, &call->control, &waits);

	if (!ok || !waits)
		return answer_or_fail(connection, ok, &answer);
	add_waiting(call, connection);
	return MHD_YES;
}

/* A suspended call that was woken: finished, or only its journal entry is. */
static enum MHD_Result
continue_call(struct MHD_Connection *connection, Call *call)
{
	QdbHttpAnswer answer = {.content_type = "application/json"};
	bool		done;
	bool		ok = run_safely(STEP_POLL, NULL, &answer, &call->control, &done);

	if (!ok || done)
		return answer_or_fail(connection, ok, &answer);
	add_waiting(call, connection);
	return MHD_YES;
}

static enum MHD_Result
handle_request(void *arg, struct MHD_Connection *connection, const char *url,
			   const char *method, const char *version, const char *upload_data,
			   size_t *upload_size, void **state)
{
	MemoryContext old_context = MemoryContextSwitchTo(request_context);
	Call	   *call = *state;
	QdbHttpRequest request;
	enum MHD_Result result;

	fill_request(&request, connection, url, method, call);
	if (call == NULL)
	{
		result = begin_call(connection, &request, &call);
		*state = call;
	}
	else if (*upload_size != 0 && call == &reading)
	{
		*upload_size = 0;
		result = MHD_YES;
	}
	else if (*upload_size != 0)
	{
		if (call->length + *upload_size > QDB_HTTP_MAX_BODY)
			call->too_long = true;
		else
			memcpy(call->body + call->length, upload_data, *upload_size);
		call->length += call->too_long ? 0 : *upload_size;
		*upload_size = 0;
		result = MHD_YES;
	}
	else if (call->too_long)
		result = refuse_length(connection);
	else if (memchr(call->body, '\0', call->length) != NULL)
		result = MHD_NO;
	else if (call->control.slot >= 0)
		result = continue_call(connection, call);
	else
		result = route_call(connection, &request, call);
	MemoryContextSwitchTo(old_context);
	MemoryContextReset(request_context);
	return result;
}

/* Also when the client has gone: what it asked for goes on without it. */
static void
forget_call(void *arg, struct MHD_Connection *connection, void **state,
			enum MHD_RequestTerminationCode code)
{
	Call	   *call = *state;

	if (call == NULL || call == &reading)
		return;
	for (Call **link = &waiting; *link != NULL; link = &(*link)->next)
	{
		if (*link == call)
		{
			*link = call->next;
			break;
		}
	}
	qdb_control_abandon(&call->control);
	pfree(call);
	*state = NULL;
}

/* Wakes the calls whose answer may be there; their handler looks. */
static void
wake_waiting(void)
{
	Call	   *call = waiting;

	waiting = NULL;
	while (call != NULL)
	{
		Call	   *next = call->next;

		call->next = NULL;
		MHD_resume_connection(call->connection);
		call = next;
	}
}

/* The library gives up: end this worker, not the whole server. */
static void
handle_panic(void *arg, const char *file, unsigned int line, const char *reason)
{
	elog(LOG, "[http] internal error of libmicrohttpd: %s", reason ? reason : "unknown");
	proc_exit(1);
}

static WaitEventSet *
make_wait_set(const int *fds, int n)
{
	WaitEventSet *set = CreateWaitEventSet(TopMemoryContext, QDB_HTTP_MAX_FDS + 2);

	AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	for (int i = 0; i < n; i++)
		AddWaitEventToSet(set, WL_SOCKET_READABLE, fds[i], NULL, NULL);
	return set;
}

/* Webhooks and notifications; an error there is logged and tried again. */
static void
tell_others(void)
{
	MemoryContext old_context = MemoryContextSwitchTo(request_context);

	PG_TRY();
	{
		webhooks_ms = qdb_webhooks_turn();
		qdb_notify_turn();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(request_context);
		EmitErrorReport();
		FlushErrorState();
		LWLockReleaseAll();
		webhooks_ms = RETRY_MS;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old_context);
	MemoryContextReset(request_context);
}

static void
reload_configuration(void)
{
	if (!ConfigReloadPending)
		return;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
}

void
qdb_http_main(Datum arg)
{
	WaitEventSet *set = NULL;
	WaitEvent	event;
	bool		open;
	int64		retry_us;

	qdb_worker_begin(&qdb_shared->http_latch, &qdb_shared->http_pid);
	request_context = AllocSetContextCreate(TopMemoryContext, "quantadb http request", ALLOCSET_DEFAULT_SIZES);
	call_context = AllocSetContextCreate(TopMemoryContext, "quantadb http calls", ALLOCSET_DEFAULT_SIZES);
	MHD_set_panic_func(handle_panic, NULL);
	qdb_prepare_dashboard();
	open = qdb_http_open(handle_request, forget_call);
	retry_us = qdb_now_us() + RETRY_MS * 1000;

	while (!qdb_worker_shutdown_requested())
	{
		int			fds[QDB_HTTP_MAX_FDS];
		bool		changed;
		bool		woken;
		int			n = qdb_http_fds(fds, &changed);
		long		timeout = qdb_http_timeout(waiting != NULL ? POLL_MS : Min(RETRY_MS, webhooks_ms));

		if (changed && set != NULL)
			FreeWaitEventSet(set);
		if (changed || set == NULL)
			set = make_wait_set(fds, n);
		woken = WaitEventSetWait(set, timeout, &event, 1, PG_WAIT_EXTENSION) > 0;
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		reload_configuration();
		/* New keys start HTTPS anew, which it may not while calls wait. */
		qdb_http_follow_keys(waiting == NULL);
		wake_waiting();
		qdb_http_turn(woken);
		tell_others();
		if (!open && qdb_now_us() >= retry_us)
		{
			open = qdb_http_open(handle_request, forget_call);
			retry_us = qdb_now_us() + RETRY_MS * 1000;
		}
	}
	qdb_webhooks_stop();
	while (waiting != NULL)		/* or the library complains about them */
		wake_waiting();
	qdb_http_close();
	qdb_worker_end();
}
