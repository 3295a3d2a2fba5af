/*-------------------------------------------------------------------------
 *
 * control.c
 *		Calls that change the cluster: same rights and answers as SQL.
 *
 * A bearer token of role "admin" or a member's certificate is needed, always.  A call first puts who
 * asked for what into the journal, by a commit in Raft, and only then asks the
 * coordinator through the mailbox, as a backend does; the connection sleeps
 * meanwhile.  A connection that is closed takes nothing back: the outcome
 * is in the journal.
 *
 *-------------------------------------------------------------------------
 */
#include "http/http.h"

#include "base/api_token.h"
#include "http/body.h"

#define PROPOSE_TIMEOUT_US	(15 * INT64CONST(1000000))
#define PROMOTE_TIMEOUT_US	(60 * INT64CONST(1000000))
#define WISH_TIMEOUT_US		(30 * INT64CONST(1000000))
#define MAX_TTL_SECONDS		(30 * 86400)
#define SETTINGS_HINT		"The settings and their values are listed in the view quantadb_settings."

bool
qdb_authorize(const QdbHttpRequest *request, QdbHttpAnswer *answer, char *who, size_t who_size)
{
	QdbApiRole	role;

	if (request->member != NULL)
	{
		strlcpy(who, request->member, who_size);
		return true;
	}
	role = qdb_api_token_check(request->authorization, who, who_size);
	if (role == QDB_API_ADMIN)
		return true;
	if (role == QDB_API_NONE)
	{
		qdb_answer_error(answer, 401, "not authorized", who,
						 "Send \"Authorization: Bearer TOKEN\" with what quantadb_api_token('admin') returned on a member.");
		answer->challenge = true;
		return false;
	}
	qdb_answer_error(answer, 403, "not allowed", "The token's role may only read.",
					 "Use a token of role \"admin\".");
	return false;
}

/* NULL: the body is not what a call takes, answer is filled. */
static pg_noinline QdbBody *
parse_body(const QdbHttpRequest *request, QdbHttpAnswer *answer)
{
	QdbHttpAnswer *volatile out = answer;
	QdbBody    *volatile body = palloc(sizeof(QdbBody));
	const char *volatile why = NULL;
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		why = qdb_body_parse(request->body, body);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		why = CopyErrorData()->message;
		FlushErrorState();
	}
	PG_END_TRY();
	if (why == NULL)
		return body;
	qdb_answer_error(out, 400, "the body is not a JSON object of plain values", why,
					 "Send an object, for example {\"node\": \"n2\"}.");
	return NULL;
}

/* Members that the call does not know are an error: a typo must not pass. */
static bool
check_fields(const QdbBody *body, const char *const *names, QdbHttpAnswer *answer)
{
	for (unsigned f = 0; f < body->nfields; f++)
	{
		bool		known = false;

		for (int i = 0; names[i] != NULL; i++)
			known = known || strcmp(names[i], body->fields[f].name) == 0;
		if (known)
			continue;
		qdb_answer_error(answer, 400, "the body has an unknown member",
						 psprintf("Member \"%s\".", body->fields[f].name),
						 names[0] == NULL ? "This call takes none." : psprintf("It may have \"%s\"%s%s%s.", names[0],
																			   names[1] ? " and \"" : "",
																			   names[1] ? names[1] : "",
																			   names[1] ? "\"" : ""));
		return false;
	}
	return true;
}

/*
 * A text of at most size - 1 bytes into field, which keeps its value where the
 * body has none.  False: answer is filled.
 */
static bool
text_field(const QdbBody *body, const char *name, char *field, size_t size, QdbHttpAnswer *answer)
{
	const QdbBodyField *f = qdb_body_field(body, name);

	if (f == NULL)
		return true;
	if (f->kind == QDB_BODY_TEXT && !f->too_long && strlcpy(field, f->text, size) < size)
		return true;
	qdb_answer_error(answer, 400, psprintf("invalid \"%s\"", name),
					 psprintf("It must be a text of at most %zu bytes.", size - 1), NULL);
	return false;
}

static bool
bool_field(const QdbBody *body, const char *name, bool *field, QdbHttpAnswer *answer)
{
	const QdbBodyField *f = qdb_body_field(body, name);

	if (f == NULL)
		return true;
	if (f->kind == QDB_BODY_BOOL)
	{
		*field = f->flag;
		return true;
	}
	qdb_answer_error(answer, 400, psprintf("invalid \"%s\"", name), "It must be true or false.", NULL);
	return false;
}

/* The command goes into the request that follows the note. */
static bool
put_command(QdbControl *control, QdbCommand *command, QdbHttpAnswer *answer)
{
	size_t		length = sizeof(control->request.command);

	command->time_us = qdb_unix_us();
	control->request.kind = QDB_REQ_PROPOSE;
	if (!qdb_command_encode(command, control->request.command, &length))
	{
		qdb_answer_error(answer, 400, "the command is too long", NULL, NULL);
		return false;
	}
	control->request.length = (uint32) length;
	return true;
}

static bool
put_setting(QdbControl *control, const char *name, const char *value, QdbHttpAnswer *answer)
{
	QdbCommand	command = {.type = QDB_CMD_SETTING};
	char		why[QDB_REASON_SIZE];

	if (!qdb_check_setting(name, value, why, sizeof(why)))
	{
		qdb_answer_error(answer, 400, "could not change the setting", why, SETTINGS_HINT);
		return false;
	}
	strlcpy(command.node, name, sizeof(command.node));
	strlcpy(command.value, value, sizeof(command.value));
	control->what = "change the setting";
	return put_command(control, &command, answer);
}

static bool
prepare_promote(const QdbBody *body, QdbControl *control, char *note, QdbHttpAnswer *answer)
{
	static const char *const names[] = {"node", "force", NULL};
	QdbRequest *request = &control->request;

	request->kind = QDB_REQ_PROMOTE;
	control->what = "promote the node";
	if (!check_fields(body, names, answer) ||
		!text_field(body, "node", request->text, QDB_NAME_SIZE, answer) ||
		!bool_field(body, "force", &request->flag, answer))
		return false;
	if (request->text[0] == '\0' && qdb_body_field(body, "node") != NULL)
	{
		qdb_answer_error(answer, 400, "invalid \"node\"", "It is empty.", "Name a member, or leave it out for this node.");
		return false;
	}
	control->deadline_us = qdb_now_us() + PROMOTE_TIMEOUT_US;
	snprintf(note, QDB_REASON_SIZE, "promote %s%s",
			 request->text[0] != '\0' ? request->text : qdb_shared->identity.name,
			 request->flag ? " by force" : "");
	return true;
}

static bool
prepare_pause(const QdbBody *body, QdbControl *control, bool pause, char *note, QdbHttpAnswer *answer)
{
	static const char *const names[] = {NULL};

	strlcpy(note, pause ? "pause automatic failover" : "resume automatic failover", QDB_REASON_SIZE);
	return check_fields(body, names, answer) &&
		put_setting(control, "auto_failover", pause ? "off" : "on", answer);
}

/* One setting a call: each is one command, and half a change helps nobody. */
static bool
prepare_settings(const QdbBody *body, QdbControl *control, char *note, QdbHttpAnswer *answer)
{
	const QdbBodyField *f = &body->fields[0];

	if (body->nfields != 1)
	{
		qdb_answer_error(answer, 400, "the body must name one setting",
						 psprintf("It names %u.", body->nfields),
						 "Send, for example, {\"failover_timeout\": \"1s\"}.");
		return false;
	}
	if (f->kind == QDB_BODY_NULL || f->too_long)
	{
		qdb_answer_error(answer, 400, "invalid value of the setting",
						 psprintf("It must be a text of at most %d bytes, a number or true or false.", QDB_VALUE_SIZE - 1), NULL);
		return false;
	}
	snprintf(note, QDB_REASON_SIZE, "set %s", f->name);
	return put_setting(control, f->name, f->kind != QDB_BODY_BOOL ? f->text : f->flag ? "on" : "off", answer);
}

static bool
prepare_join(const QdbBody *body, QdbControl *control, char *note, QdbHttpAnswer *answer)
{
	static const char *const names[] = {"role", "ttl_seconds", NULL};
	const QdbBodyField *ttl = qdb_body_field(body, "ttl_seconds");
	QdbRequest *request = &control->request;
	int			role;

	request->kind = QDB_REQ_TOKEN;
	request->number = 3600;
	strlcpy(request->text, "voter", sizeof(request->text));
	control->what = "create a join token";
	if (!check_fields(body, names, answer) ||
		!text_field(body, "role", request->text, QDB_NAME_SIZE, answer))
		return false;
	if (!qdb_parse_role(request->text, &role))
	{
		qdb_answer_error(answer, 400, "invalid role", NULL, "Roles are \"voter\" and \"replica\".");
		return false;
	}
	if (ttl != NULL && (!qdb_body_integer(ttl, &request->number) || request->number < 1 || request->number > MAX_TTL_SECONDS))
	{
		qdb_answer_error(answer, 400, "invalid \"ttl_seconds\"",
						 "It must be a whole number between 1 and 2592000, which is 30 days.", NULL);
		return false;
	}
	snprintf(note, QDB_REASON_SIZE, "create a join token for a %s", request->text);
	return true;
}

/*
 * A change of the member that "/cluster/nodes/NAME" or "/cluster/nodes/NAME/role" names; the
 * name is not longer than names are.
 */
static bool
prepare_wish(const char *path, QdbControl *control, QdbHttpAnswer *answer)
{
	const char *name = path + strlen("/cluster/nodes/");
	char	   *node = pnstrdup(name, strcspn(name, "/"));

	if (qdb_member_by_name(qdb_copy_state(), node) == NULL)
	{
		qdb_answer_error(answer, 404, "no such node", psprintf("Node \"%s\".", node),
						 "The members are listed under /cluster/nodes.");
		return false;
	}
	strlcpy(control->request.text, node, sizeof(control->request.text));
	control->deadline_us = qdb_now_us() + WISH_TIMEOUT_US;
	return true;
}

static bool
prepare_role(const char *path, const QdbBody *body, QdbControl *control, char *note, QdbHttpAnswer *answer)
{
	static const char *const names[] = {"role", NULL};
	char		text[QDB_NAME_SIZE] = "";
	int			role;

	control->what = "change the role";
	control->request.kind = QDB_REQ_ROLE;
	if (!check_fields(body, names, answer) || !text_field(body, "role", text, sizeof(text), answer) ||
		!prepare_wish(path, control, answer))
		return false;
	if (!qdb_parse_role(text, &role))
	{
		qdb_answer_error(answer, 400, "invalid role", NULL,
						 "Send {\"role\": \"voter\"} or {\"role\": \"replica\"}.");
		return false;
	}
	control->request.number = role;
	snprintf(note, QDB_REASON_SIZE, "make %s a %s", control->request.text, text);
	return true;
}

static bool
prepare_remove(const char *path, const QdbBody *body, QdbControl *control, char *note, QdbHttpAnswer *answer)
{
	static const char *const names[] = {NULL};

	control->what = "remove the node";
	control->request.kind = QDB_REQ_REMOVE;
	if (!check_fields(body, names, answer) || !prepare_wish(path, control, answer))
		return false;
	snprintf(note, QDB_REASON_SIZE, "remove %s", control->request.text);
	return true;
}

static bool
prepare(const QdbHttpRequest *request, QdbHttpAnswer *answer, QdbControl *control, char *note)
{
	const char *path = request->path;
	QdbBody    *body = parse_body(request, answer);

	if (body == NULL)
		return false;
	if (strcmp(path, "/cluster/promote") == 0)
		return prepare_promote(body, control, note, answer);
	if (strcmp(path, "/cluster/pause") == 0)
		return prepare_pause(body, control, true, note, answer);
	if (strcmp(path, "/cluster/resume") == 0)
		return prepare_pause(body, control, false, note, answer);
	if (strcmp(path, "/cluster/settings") == 0)
		return prepare_settings(body, control, note, answer);
	if (strcmp(path, "/cluster/join") == 0)
		return prepare_join(body, control, note, answer);
	if (request->method == QDB_METHOD_DELETE)
		return prepare_remove(path, body, control, note, answer);
	return prepare_role(path, body, control, note, answer);
}

/* False: the mailbox is full, answer is filled. */
static bool
post(QdbControl *control, const QdbRequest *request, QdbHttpAnswer *answer)
{
	control->slot = qdb_request_post(request);
	if (control->slot >= 0)
		return true;
	qdb_answer_error(answer, 503, psprintf("could not %s", control->what),
					 "Too many requests are under way.", "Try again.");
	return false;
}

static bool
post_note(QdbControl *control, const char *who, const char *note, QdbHttpAnswer *answer)
{
	QdbCommand	command = {.type = QDB_CMD_NOTE};
	QdbRequest *request = palloc0(sizeof(QdbRequest));
	size_t		length = sizeof(request->command);

	command.time_us = qdb_unix_us();
	strlcpy(command.value, "control", sizeof(command.value));
	strlcpy(command.node, qdb_shared->identity.name, sizeof(command.node));
	snprintf(command.text, sizeof(command.text), "%.100s asked to %.140s", who, note);
	request->kind = QDB_REQ_PROPOSE;
	if (!qdb_command_encode(&command, request->command, &length))
		elog(ERROR, "journal entry is too long");
	request->length = (uint32) length;
	return post(control, request, answer);
}

bool
qdb_start_control(const QdbHttpRequest *request, QdbHttpAnswer *answer, QdbControl *control)
{
	char		who[QDB_REASON_SIZE] = "";
	char		note[QDB_REASON_SIZE] = "";

	memset(control, 0, sizeof(*control));
	control->slot = -1;
	control->deadline_us = qdb_now_us() + PROPOSE_TIMEOUT_US;
	if (!qdb_shared->member)
	{
		qdb_answer_error(answer, 409, "this server is not a member of a cluster", NULL,
						 "Only SQL can make it one: quantadb_init(), or quantadb_join() with a token that POST /cluster/join on a member returns.");
		return false;
	}
	if (!qdb_authorize(request, answer, who, sizeof(who)) ||
		!prepare(request, answer, control, note) ||
		!post_note(control, who, note, answer))
		return false;
	ereport(LOG, (errmsg("[http] %s asked to %s", who, note)));
	return true;
}

static unsigned int
status_of(const QdbRequest *request)
{
	switch (request->sqlstate)
	{
		case ERRCODE_UNDEFINED_OBJECT:
			return 404;
		case ERRCODE_INVALID_PARAMETER_VALUE:
			return 400;
		case ERRCODE_T_R_STATEMENT_COMPLETION_UNKNOWN:
			return 504;
		case ERRCODE_CANNOT_CONNECT_NOW:
		case ERRCODE_CONFIGURATION_LIMIT_EXCEEDED:
			return 503;
		case ERRCODE_FEATURE_NOT_SUPPORTED:
			return 501;
		default:
			return 409;
	}
}

/* Where a new server asks for its certificate, which only voters issue: here, or at one that is heard. */
static char *
join_address(void)
{
	const QdbStatus *status = qdb_collect_status();
	const QdbMember *voter = NULL;
	const char *host = qdb_advertise_host;
	int			port = qdb_http_port;

	for (int i = 0; i < status->nnodes; i++)
	{
		const QdbNodeStatus *node = &status->nodes[i];

		if (node->member->role == QDB_ROLE_VOTER && (node->self || (voter == NULL && node->connected)))
			voter = node->member;
	}
	if (voter != NULL && voter->id != qdb_shared->identity.member)
	{
		host = voter->host;
		port = voter->http_port;
	}
	return psprintf(strchr(host, ':') != NULL ? "[%s]:%d" : "%s:%d", host, port);
}

static void
answer_done(QdbHttpAnswer *answer, const QdbRequest *request)
{
	StringInfo	body = &answer->body;

	answer->status = 200;
	appendStringInfoChar(body, '{');
	qdb_put_flag(body, "ok", true);
	if (request->kind == QDB_REQ_PROMOTE)
		qdb_put_int(body, "epoch", request->answer);
	else if (request->kind == QDB_REQ_TOKEN)
	{
		qdb_put_text(body, "token", request->message);
		qdb_put_text(body, "next", psprintf("On the new server: SELECT quantadb_join('%s', 'TOKEN')", join_address()));
	}
	else if ((request->kind == QDB_REQ_ROLE || request->kind == QDB_REQ_REMOVE) && request->message[0] != '\0')
		qdb_put_text(body, "warning", request->message);
	appendStringInfoString(body, "}\n");
}

static void
answer_refused(QdbHttpAnswer *answer, const QdbControl *control, const QdbRequest *request)
{
	qdb_answer_error(answer, status_of(request), psprintf("could not %s", control->what),
					 request->message[0] != '\0' ? request->message : qdb_result_text(request->result),
					 request->hint[0] != '\0' ? request->hint :
					 request->kind == QDB_REQ_PROPOSE && request->result == QDB_BAD_VALUE ?
					 SETTINGS_HINT :
					 "The journal under /cluster/journal shows what the cluster decided lately.");
}

bool
qdb_control_poll(QdbControl *control, QdbHttpAnswer *answer)
{
	QdbRequest *done = palloc0(sizeof(QdbRequest));

	if (!qdb_request_poll(control->slot, done))
	{
		if (qdb_now_us() <= control->deadline_us)
			return false;
		qdb_control_abandon(control);
		qdb_answer_error(answer, 504, psprintf("could not %s: no answer from the cluster in time", control->what),
						 "The outcome is unknown: it may still happen.",
						 "Look at /cluster/status and /cluster/journal, then try again.");
		return true;
	}
	control->slot = -1;
	if (!done->ok)
		answer_refused(answer, control, done);
	else if (control->noted)
		answer_done(answer, done);
	else
	{
		control->noted = true;
		return !post(control, &control->request, answer);
	}
	return true;
}

void
qdb_control_abandon(QdbControl *control)
{
	if (control->slot >= 0)
		qdb_request_abandon(control->slot);
	control->slot = -1;
}
