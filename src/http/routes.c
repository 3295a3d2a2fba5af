/*-------------------------------------------------------------------------
 *
 * routes.c
 *		Paths, the methods they know, and what answers them.
 *
 *-------------------------------------------------------------------------
 */
#include "http/http.h"

#define READ		"GET, HEAD, OPTIONS"
#define NODES		"/cluster/nodes/"

typedef struct Route
{
	const char *path;
	int			methods;
	const char *allow;
	QdbRouteHandler handler;	/* NULL: control.c */
} Route;

static const Route routes[] = {
	{"/", QDB_METHOD_GET, READ, qdb_get_root},
	{"/primary", QDB_METHOD_GET, READ, qdb_get_primary},
	{"/leader", QDB_METHOD_GET, READ, qdb_get_primary},
	{"/read-write", QDB_METHOD_GET, READ, qdb_get_primary},
	{"/replica", QDB_METHOD_GET, READ, qdb_get_replica},
	{"/read-only", QDB_METHOD_GET, READ, qdb_get_read_only},
	{"/health", QDB_METHOD_GET, READ, qdb_get_health},
	{"/cluster/health", QDB_METHOD_GET, READ, qdb_get_cluster_health},
	{"/liveness", QDB_METHOD_GET, READ, qdb_get_liveness},
	{"/readiness", QDB_METHOD_GET, READ, qdb_get_readiness},
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

	if (route == NULL)
		return false;
	if (route->handler == NULL)
		return qdb_start_control(request, answer, control);
	route->handler(request, answer, qdb_collect_status());
	if (request->method == QDB_METHOD_OPTIONS)
		answer->allow = route->allow;	/* HAProxy asks so by default */
	return false;
}
