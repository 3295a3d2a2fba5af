/*-------------------------------------------------------------------------
 *
 * body.c
 *		Read the body of an HTTP control call, with PostgreSQL's JSON parser.
 *
 * Whoever reaches the HTTP port sends these bytes.  The fuzzer builds this file
 * without a server (FRONTEND).
 *
 *-------------------------------------------------------------------------
 */
#ifdef FRONTEND
#include "postgres_fe.h"
#else
#include "postgres.h"
#endif

#include "common/jsonapi.h"
#include "mb/pg_wchar.h"

#include "http/body.h"

#ifdef FRONTEND
#define json_errdetail(error, lex) "It is no JSON." /* the server says more */
#endif

typedef struct Reading
{
	QdbBody    *body;
	int			depth;
	const char *problem;		/* the first; then nothing more is taken */
} Reading;

static void
begin_object(void *state)
{
	Reading    *reading = state;

	if (reading->depth++ > 0 && reading->problem == NULL)
		reading->problem = "A value is an object.";
}

static void
end_object(void *state)
{
	((Reading *) state)->depth--;
}

static void
begin_list(void *state)
{
	Reading    *reading = state;

	if (reading->problem == NULL)
		reading->problem = "There is a list.";
}

static void
begin_field(void *state, char *name, bool is_null)
{
	Reading    *reading = state;
	QdbBody    *body = reading->body;

	if (reading->problem != NULL)
		return;
	for (unsigned i = 0; i < body->nfields; i++)
	{
		if (strcmp(body->fields[i].name, name) == 0)
			reading->problem = "A name is there twice.";
	}
	if (body->nfields == QDB_BODY_MAX_FIELDS)
		reading->problem = "There are too many members.";
	else if (strlen(name) >= QDB_NAME_SIZE)
		reading->problem = "A name is too long.";
	if (reading->problem == NULL)
		strlcpy(body->fields[body->nfields++].name, name, QDB_NAME_SIZE);
}

static void
take_scalar(void *state, char *token, JsonTokenType type)
{
	Reading    *reading = state;
	QdbBodyField *field;

	if (reading->depth == 0 && reading->problem == NULL)
		reading->problem = "There is no object.";
	if (reading->problem != NULL)
		return;
	field = &reading->body->fields[reading->body->nfields - 1];
	if (type == JSON_TOKEN_STRING || type == JSON_TOKEN_NUMBER)
	{
		field->kind = type == JSON_TOKEN_STRING ? QDB_BODY_TEXT : QDB_BODY_NUMBER;
		field->too_long = strlen(token) >= sizeof(field->text);
		if (!field->too_long)
			strlcpy(field->text, token, sizeof(field->text));
	}
	else if (type != JSON_TOKEN_NULL)
	{
		field->kind = QDB_BODY_BOOL;
		field->flag = type == JSON_TOKEN_TRUE;
	}
}

const char *
qdb_body_parse(const char *text, QdbBody *body)
{
	Reading		reading = {.body = body};
	JsonSemAction actions = {.semstate = &reading,.object_start = begin_object,.object_end = end_object,
	.array_start = begin_list,.object_field_start = begin_field,.scalar = take_scalar};
	int			length = strlen(text);
	JsonLexContext *lex;
	JsonParseErrorType error;

	memset(body, 0, sizeof(*body));
	if (text[strspn(text, " \t\r\n")] == '\0')
		return NULL;
	if (pg_encoding_verifymbstr(PG_UTF8, text, length) != length)
		return "It is not UTF-8.";
	lex = makeJsonLexContextCstringLen(unconstify(char *, text), length, PG_UTF8, true);
	error = pg_parse_json(lex, &actions);
	return error != JSON_SUCCESS ? json_errdetail(error, lex) : reading.problem;
}

const QdbBodyField *
qdb_body_field(const QdbBody *body, const char *name)
{
	for (unsigned i = 0; i < body->nfields; i++)
	{
		if (strcmp(body->fields[i].name, name) == 0)
			return body->fields[i].kind != QDB_BODY_NULL ? &body->fields[i] : NULL;
	}
	return NULL;
}

bool
qdb_body_integer(const QdbBodyField *field, int64_t *value)
{
	char	   *end;

	if (field->kind != QDB_BODY_NUMBER || field->too_long)
		return false;
	errno = 0;
	*value = strtoll(field->text, &end, 10);
	return errno == 0 && *end == '\0';
}
