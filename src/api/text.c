/*-------------------------------------------------------------------------
 *
 * text.c
 *		Texts between a database and the cluster's state.
 *
 * The state is one for databases of all encodings, and for HTTP: what it holds is
 * UTF-8.  A database has its own encoding, in which the functions get their arguments
 * and give their results.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#include "api/sql.h"

#define LONGEST_CHARACTER	16

char *
qdb_utf8(const char *text)
{
	return pg_server_to_any(text, strlen(text), PG_UTF8);
}

char *
qdb_utf8_argument(const struct varlena *value)
{
	return qdb_utf8(text_to_cstring(value));
}

/* One character that is not ASCII; "?" where the database's encoding lacks it. */
static void
add_character(StringInfo out, const char *character, int length, Oid conversion)
{
	unsigned char converted[LONGEST_CHARACTER + 1] = "";

	if (GetDatabaseEncoding() == PG_UTF8 || GetDatabaseEncoding() == PG_SQL_ASCII)
		appendBinaryStringInfo(out, character, length);
	else if (OidIsValid(conversion) &&
			 pg_do_encoding_conversion_buf(conversion, PG_UTF8, GetDatabaseEncoding(),
										   (unsigned char *) unconstify(char *, character), length,
										   converted, sizeof(converted), true) == length)
		appendStringInfoString(out, (char *) converted);
	else
		appendStringInfoChar(out, '?');
}

Datum
qdb_text_datum(const char *utf8)
{
	int			left = strlen(utf8);
	Oid			conversion = InvalidOid;
	StringInfoData out;

	if (GetDatabaseEncoding() != PG_UTF8 && GetDatabaseEncoding() != PG_SQL_ASCII)
		conversion = FindDefaultConversionProc(PG_UTF8, GetDatabaseEncoding());
	initStringInfo(&out);
	while (left > 0)
	{
		int			length = pg_encoding_verifymbchar(PG_UTF8, utf8, left);

		if (length <= 0)		/* written before texts were converted */
		{
			appendStringInfoChar(&out, '?');
			length = 1;
		}
		else if (length == 1)
			appendStringInfoChar(&out, *utf8);
		else
			add_character(&out, utf8, length, conversion);
		utf8 += length;
		left -= length;
	}
	return CStringGetTextDatum(out.data);
}
