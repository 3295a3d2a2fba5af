/*-------------------------------------------------------------------------
 *
 * body.h
 *		The body of an HTTP control call: one JSON object of plain values.
 *
 * Calls take a handful of texts, numbers and truth values, so that is all that is
 * read: no objects in objects, no lists, no name twice.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_HTTP_BODY_H
#define QDB_HTTP_BODY_H

#include "core/state.h"

#define QDB_BODY_MAX_FIELDS		8

typedef enum QdbBodyKind
{
	QDB_BODY_NULL,
	QDB_BODY_TEXT,
	QDB_BODY_NUMBER,
	QDB_BODY_BOOL
} QdbBodyKind;

typedef struct QdbBodyField
{
	char		name[QDB_NAME_SIZE];
	QdbBodyKind kind;
	bool		flag;			/* of a BOOL */
	bool		too_long;		/* a TEXT or NUMBER that did not fit: text is
								 * empty */
	char		text[QDB_VALUE_SIZE];	/* of a TEXT, without escapes, or a
										 * NUMBER as it was written */
} QdbBodyField;

typedef struct QdbBody
{
	unsigned	nfields;
	QdbBodyField fields[QDB_BODY_MAX_FIELDS];
} QdbBody;

/*
 * Reads a terminated text; nothing but space counts as {}.  NULL, or what is wrong with
 * it, as a sentence.  Raises an error when memory or the stack ends.
 */
extern const char *qdb_body_parse(const char *text, QdbBody *body);

/* NULL: the body has no such member, or it is null. */
extern const QdbBodyField *qdb_body_field(const QdbBody *body, const char *name);

/* False: it is no whole number, or none that an int64 takes. */
extern bool qdb_body_integer(const QdbBodyField *field, int64_t *value);

#endif							/* QDB_HTTP_BODY_H */
