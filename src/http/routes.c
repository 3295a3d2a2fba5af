/*-------------------------------------------------------------------------
 *
 * routes.c
 *		Paths, the methods they know, and what answers them.
 *
 *-------------------------------------------------------------------------
 */
#include "http/http.h"

#include "utils/memutils.h"

#define READ		"GET, HEAD, OPTIONS"
#define NODES		"/cluster/nodes/"
#define RECENT_US	(10 * INT64CONST(1000))

typedef struct Route
{
	const char *path;
	int			methods;
	const char *allow;
	QdbRouteHandler handler;	/* NULL: control.c */
	bool		often;			/* load balancers ask many times a second */
} Route;

static const Route routes[] = {
	{"/", QDB_METHOD_GET, READ, qdb_get_root, true},
	{"/primary", QDB_METHOD_GET, READ, qdb_get_primary, true},
	{"/leader", QDB_METHOD_GET, READ, qdb_get_primary, true},
	{"/read-write", QDB_METHOD_GET, READ, qdb_get_primary, true},
	{"/replica", QDB_METHOD_GET, READ, qdb_get_replica, true},
	{"/read-only", QDB_METHOD_GET, READ, qdb_get_read_only, true},
	{"/health", QDB_METHOD_GET, READ, qdb_get_health, true},
	{"/cluster/health", QDB_METHOD_GET, READ, qdb_get_cluster_health, true},
	{"/liveness", QDB_METHOD_GET, READ, qdb_get_liveness, true},
	{"/readiness", QDB_METHOD_GET, READ, qdb_get_readiness, true},
	{"/metrics", QDB_METHOD_GET, READ, qdb_get_metrics},
	{"/cluster/status", QDB_METHOD_GET, READ, qdb_get_status},
	{"/cluster/nodes", QDB_METHOD_GET, READ, qdb_get_nodes},
	{"/cluster/journal", QDB_METHOD_GET, READ, qdb_get_journal},
	{"/cluster/rehearse", QDB_METHOD_GET, READ, qdb_get_rehearse},
	{"/cluster/promote", QDB_METHOD_POST, "POST, OPTIONS", NULL},
	{"/cluster/pause", QDB_METHOD_POST, "POST, OPTIONS", NULL},
	{"/cluster/resume", QDB_METHOD_POST, "POST, OPTIONS", NULL},
	{"/cluster/join", QDB_METHOD_POST, "POST, OPTIONS", NULL},
	{"/cluster/settings", QDB_METHOD_PATCH, "PATCH, OPTIONS", NULL},
};

static const Route node_route = {NODES, QDB_METHOD_DELETE, "DELETE, OPTIONS", NULL};
static const Route role_route = {NODES, QDB_METHOD_POST, "POST, OPTIONS", NULL};

/* A name without a slash follows /cluster/nodes/, and nothing or /role. */
static const Route *
find_node_route(const char *path)
{
	const char *name;
	const char *slash;

	if (strncmp(path, NODES, strlen(NODES)) != 0)
		return NULL;
	name = path + strlen(NODES);
	slash = strchr(name, '/');
	if (name[0] == '\0' || slash == name)
		return NULL;
	if (slash == NULL)
		return &node_route;
	return strcmp(slash, "/role") == 0 ? &role_route : NULL;
}

bool
qdb_refuse_repeated(const QdbHttpRequest *request, QdbHttpAnswer *answer)
{
	if (request->repeated == NULL)
		return false;
	qdb_answer_error(answer, 400, psprintf("invalid argument \"%s\"", request->repeated), "It is given twice.",
					 "Give it once.");
	return true;
}

/* NULL: answer is filled. */
static const Route *
find_route(const QdbHttpRequest *request, QdbHttpAnswer *answer)
{
	const Route *route = NULL;

	for (int i = 0; i < lengthof(routes) && route == NULL; i++)
	{
		if (strcmp(routes[i].path, request->path) == 0)
			route = &routes[i];
	}
	if (route == NULL)
		route = find_node_route(request->path);
	if (route == NULL)
	{
		qdb_answer_error(answer, 404, "no such path", NULL,
						 "See /cluster/status for the cluster, /primary and /replica for health checks.");
		return NULL;
	}
	if (route->handler == NULL && request->method == QDB_METHOD_OPTIONS)
	{
		answer->status = 204;
		answer->allow = route->allow;
		return NULL;
	}
	if ((request->method & (route->methods | QDB_METHOD_OPTIONS)) == 0)
	{
		qdb_answer_error(answer, 405, "this path does not know that method", NULL,
						 psprintf("It knows %s.", route->allow));
		answer->allow = route->allow;
		return NULL;
	}
	return route;
}

/*
 * For health checks.  What changes at once is looked at for each; the copies of the state and
 * of what other nodes last said, which take the coordinator's lock, serve all checks of
 * a few milliseconds.
 */
static const QdbStatus *
recent_status(void)
{
	static MemoryContext context = NULL;
	static QdbStatus *recent = NULL;
	static int64 collected_us = 0;
	int64		now = qdb_now_us();

	if (recent != NULL && now - collected_us < RECENT_US && recent->member == qdb_shared->member)
	{
		qdb_refresh_own_status(recent);
		return recent;
	}
	if (context == NULL)
		context = AllocSetContextCreate(TopMemoryContext, "quantadb http status", ALLOCSET_DEFAULT_SIZES);
	recent = NULL;
	MemoryContextReset(context);
	MemoryContextSwitchTo(context);
	recent = qdb_collect_status();
	collected_us = now;
	return recent;
}

bool
qdb_route_takes_body(const QdbHttpRequest *request, QdbHttpAnswer *answer)
{
	const Route *route = find_route(request, answer);
	char		who[QDB_REASON_SIZE];

	return route != NULL && route->handler == NULL && qdb_authorize(request, answer, who, sizeof(who));
}

bool
qdb_route_request(const QdbHttpRequest *request, QdbHttpAnswer *answer, QdbControl *control)
{
	const Route *route = find_route(request, answer);
	const QdbStatus *status;
	MemoryContext old_context;

	if (route == NULL)
		return false;
	if (route->handler == NULL)
		return qdb_start_control(request, answer, control);
	old_context = CurrentMemoryContext;
	status = route->often ? recent_status() : qdb_collect_status();
	MemoryContextSwitchTo(old_context);
	route->handler(request, answer, status);
	if (request->method == QDB_METHOD_OPTIONS)
		answer->allow = route->allow;	/* HAProxy asks so by default */
	return false;
}
