/*-------------------------------------------------------------------------
 *
 * json.c
 *		Members of JSON objects, one call each, and the shape of errors.
 *
 *-------------------------------------------------------------------------
 */
#include "http/http.h"

#include "catalog/pg_type_d.h"
#include "mb/pg_wchar.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/timestamp.h"

const char *
qdb_valid_utf8(const char *text)
{
	int			left = strlen(text);
	char	   *copy;

	if (pg_encoding_verifymbstr(PG_UTF8, text, left) == left)
		return text;
	copy = pstrdup(text);
	for (char *at = copy; left > 0;)
	{
		int			length = pg_encoding_verifymbchar(PG_UTF8, at, left);

		if (length <= 0)
		{
			*at = '?';
			length = 1;
		}
		at += length;
		left -= length;
	}
	return copy;
}

void
qdb_put_key(StringInfo body, const char *key)
{
	char		last = body->len > 0 ? body->data[body->len - 1] : '{';

	if (last != '{' && last != '[')
		appendStringInfoString(body, ", ");
	escape_json(body, key);
	appendStringInfoString(body, ": ");
}

void
qdb_put_text(StringInfo body, const char *key, const char *value)
{
	qdb_put_key(body, key);
	if (value == NULL || value[0] == '\0')
		appendStringInfoString(body, "null");
	else
		escape_json(body, qdb_valid_utf8(value));
}

void
qdb_put_int(StringInfo body, const char *key, int64 value)
{
	qdb_put_key(body, key);
	appendStringInfo(body, INT64_FORMAT, value);
}

void
qdb_put_known(StringInfo body, const char *key, int64 value)
{
	if (value < 0)
		qdb_put_text(body, key, NULL);
	else
		qdb_put_int(body, key, value);
}

void
qdb_put_flag(StringInfo body, const char *key, bool value)
{
	qdb_put_key(body, key);
	appendStringInfoString(body, value ? "true" : "false");
}

void
qdb_put_lsn(StringInfo body, const char *key, XLogRecPtr lsn)
{
	qdb_put_key(body, key);
	if (lsn == InvalidXLogRecPtr)
		appendStringInfoString(body, "null");
	else
		appendStringInfo(body, "\"%X/%X\"", LSN_FORMAT_ARGS(lsn));
}

void
qdb_put_time(StringInfo body, const char *key, int64 unix_us)
{
	TimestampTz time = unix_us - (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
	char		buf[MAXDATELEN + 1];

	if (unix_us == 0)
	{
		qdb_put_text(body, key, NULL);
		return;
	}
	JsonEncodeDateTime(buf, TimestampTzGetDatum(time), TIMESTAMPTZOID, NULL);
	qdb_put_text(body, key, buf);
}

void
qdb_answer_error(QdbHttpAnswer *answer, unsigned int status, const char *error,
				 const char *detail, const char *hint)
{
	answer->status = status;
	answer->content_type = "application/json";
	resetStringInfo(&answer->body);
	appendStringInfoChar(&answer->body, '{');
	qdb_put_text(&answer->body, "error", error);
	qdb_put_text(&answer->body, "detail", detail);
	qdb_put_text(&answer->body, "hint", hint);
	appendStringInfoString(&answer->body, "}\n");
}
