/*-------------------------------------------------------------------------
 *
 * body.c
 *		Read the body of an HTTP control call.
 *
 * Whoever reaches the HTTP port and has a token sends these bytes.  The text ends
 * with a zero, which is no part of any JSON token, so a look at the next byte never
 * goes past its end.
 *
 *-------------------------------------------------------------------------
 */
#include "core/body.h"

#include <stdio.h>
#include <string.h>

typedef struct Cursor
{
	const unsigned char *p;
	const unsigned char *start;
	char	   *why;
} Cursor;

/* Where a text goes; what does not fit is counted only. */
typedef struct Sink
{
	char	   *out;
	size_t		size;
	size_t		used;
} Sink;

static bool
fail(Cursor *c, const char *what)
{
	snprintf(c->why, QDB_BODY_WHY_SIZE, "%s at byte %zu.", what, (size_t) (c->p - c->start) + 1);
	return false;
}

static void
skip_space(Cursor *c)
{
	while (*c->p == ' ' || *c->p == '\t' || *c->p == '\r' || *c->p == '\n')
		c->p++;
}

static bool
take(Cursor *c, char what)
{
	skip_space(c);
	if (*c->p != (unsigned char) what)
		return false;
	c->p++;
	return true;
}

static void
put(Sink *sink, unsigned char byte)
{
	if (sink->used + 1 < sink->size)
		sink->out[sink->used] = (char) byte;
	sink->used++;
}

static void
put_code_point(Sink *sink, uint32_t code)
{
	if (code < 0x80)
		put(sink, (unsigned char) code);
	else if (code < 0x800)
	{
		put(sink, (unsigned char) (0xC0 | code >> 6));
		put(sink, (unsigned char) (0x80 | (code & 0x3F)));
	}
	else
	{
		if (code < 0x10000)
			put(sink, (unsigned char) (0xE0 | code >> 12));
		else
		{
			put(sink, (unsigned char) (0xF0 | code >> 18));
			put(sink, (unsigned char) (0x80 | (code >> 12 & 0x3F)));
		}
		put(sink, (unsigned char) (0x80 | (code >> 6 & 0x3F)));
		put(sink, (unsigned char) (0x80 | (code & 0x3F)));
	}
}

/* Terminates.  False: something did not fit; a sequence that was cut goes whole. */
static bool
finish(Sink *sink)
{
	size_t		end = sink->used;

	if (end < sink->size)
	{
		sink->out[end] = '\0';
		return true;
	}
	end = sink->size - 1;
	while (end > 0 && ((unsigned char) sink->out[end - 1] & 0xC0) == 0x80)
		end--;
	if (end > 0 && (unsigned char) sink->out[end - 1] >= 0xC0)
		end--;
	sink->out[end] = '\0';
	return false;
}

/* Bytes of the well-formed UTF-8 sequence at p, 0: there is none. */
static int
sequence_length(const unsigned char *p)
{
	unsigned char low = 0x80,
				high = 0xBF;
	int			length;

	if (p[0] < 0x80)
		return 1;
	if (p[0] < 0xC2 || p[0] > 0xF4)
		return 0;
	length = p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : 4;
	/* No longer form of a shorter one, no surrogate, nothing past the last. */
	if (p[0] == 0xE0)
		low = 0xA0;
	else if (p[0] == 0xED)
		high = 0x9F;
	else if (p[0] == 0xF0)
		low = 0x90;
	else if (p[0] == 0xF4)
		high = 0x8F;
	if (p[1] < low || p[1] > high)
		return 0;
	for (int i = 2; i < length; i++)
		if ((p[i] & 0xC0) != 0x80)
			return 0;
	return length;
}

/* The four digits of \uXXXX. */
static bool
read_hex(Cursor *c, uint32_t *code)
{
	*code = 0;
	for (int i = 0; i < 4; i++)
	{
		unsigned char b = *c->p;

		if (b >= '0' && b <= '9')
			*code = *code << 4 | (uint32_t) (b - '0');
		else if ((b | 0x20) >= 'a' && (b | 0x20) <= 'f')
			*code = *code << 4 | (uint32_t) ((b | 0x20) - 'a' + 10);
		else
			return fail(c, "A digit of \\u is missing");
		c->p++;
	}
	return true;
}

static bool
read_unicode_escape(Cursor *c, Sink *sink)
{
	uint32_t	code,
				second;

	if (!read_hex(c, &code))
		return false;
	if (code >= 0xD800 && code < 0xDC00 && c->p[0] == '\\' && c->p[1] == 'u')
	{
		c->p += 2;
		if (!read_hex(c, &second))
			return false;
		if (second < 0xDC00 || second > 0xDFFF)
			return fail(c, "Half of a surrogate pair stands alone");
		code = 0x10000 + ((code - 0xD800) << 10) + (second - 0xDC00);
	}
	else if (code >= 0xD800 && code <= 0xDFFF)
		return fail(c, "Half of a surrogate pair stands alone");
	if (code == 0)
		return fail(c, "\\u0000 cannot be part of a text");
	put_code_point(sink, code);
	return true;
}

static bool
read_escape(Cursor *c, Sink *sink)
{
	static const char names[] = "\"\\/bfnrt";
	static const char bytes[] = "\"\\/\b\f\n\r\t";
	unsigned char name = *c->p;
	const char *known = name != '\0' ? strchr(names, name) : NULL;

	if (name == 'u')
	{
		c->p++;
		return read_unicode_escape(c, sink);
	}
	if (known == NULL)
		return fail(c, "An escape is not known");
	c->p++;
	put(sink, (unsigned char) bytes[known - names]);
	return true;
}

/* After the opening quote.  *fits: all of it is in out. */
static bool
read_text(Cursor *c, char *out, size_t size, bool *fits)
{
	Sink		sink = {.out = out,.size = size};

	while (*c->p != '"')
	{
		int			length;

		if (*c->p == '\\')
		{
			c->p++;
			if (!read_escape(c, &sink))
				return false;
			continue;
		}
		if (*c->p == '\0')
			return fail(c, "A text has no end");
		if (*c->p < 0x20)
			return fail(c, "A control character must be escaped");
		length = sequence_length(c->p);
		if (length == 0)
			return fail(c, "The text is not UTF-8");
		while (length-- > 0)
			put(&sink, *c->p++);
	}
	c->p++;
	*fits = finish(&sink);
	return true;
}

static void
put_digits(Cursor *c, Sink *sink)
{
	while (*c->p >= '0' && *c->p <= '9')
		put(sink, *c->p++);
}

/* As JSON defines it: no leading zeros, no bare point. */
static bool
read_number(Cursor *c, QdbBodyField *field)
{
	Sink		sink = {.out = field->text,.size = sizeof(field->text)};
	size_t		before;

	if (*c->p == '-')
		put(&sink, *c->p++);
	before = sink.used;
	if (*c->p == '0')
		put(&sink, *c->p++);
	else
		put_digits(c, &sink);
	if (sink.used == before)
		return fail(c, "A value is missing or not known");
	if (*c->p == '.')
	{
		put(&sink, *c->p++);
		before = sink.used;
		put_digits(c, &sink);
		if (sink.used == before)
			return fail(c, "A digit is missing");
	}
	if (*c->p == 'e' || *c->p == 'E')
	{
		put(&sink, *c->p++);
		if (*c->p == '+' || *c->p == '-')
			put(&sink, *c->p++);
		before = sink.used;
		put_digits(c, &sink);
		if (sink.used == before)
			return fail(c, "A digit is missing");
	}
	field->kind = QDB_BODY_NUMBER;
	field->too_long = !finish(&sink);
	return true;
}

static bool
read_word(Cursor *c, const char *word)
{
	size_t		length = strlen(word);

	if (strncmp((const char *) c->p, word, length) != 0)
		return false;
	c->p += length;
	return true;
}

static bool
read_value(Cursor *c, QdbBodyField *field)
{
	bool		fits;

	skip_space(c);
	if (*c->p == '"')
	{
		c->p++;
		field->kind = QDB_BODY_TEXT;
		if (!read_text(c, field->text, sizeof(field->text), &fits))
			return false;
		field->too_long = !fits;
		return true;
	}
	if (*c->p == '{' || *c->p == '[')
		return fail(c, "A value is an object or a list");
	field->kind = QDB_BODY_BOOL;
	if (read_word(c, "true"))
	{
		field->flag = true;
		return true;
	}
	if (read_word(c, "false"))
		return true;
	field->kind = QDB_BODY_NULL;
	if (read_word(c, "null"))
		return true;
	return read_number(c, field);
}

static bool
read_field(Cursor *c, QdbBody *body)
{
	QdbBodyField *field = &body->fields[body->nfields];
	bool		fits;

	if (body->nfields == QDB_BODY_MAX_FIELDS)
		return fail(c, "There are too many members");
	if (!take(c, '"'))
		return fail(c, "A name is missing");
	if (!read_text(c, field->name, sizeof(field->name), &fits))
		return false;
	if (!fits)
		return fail(c, "A name is too long");
	for (unsigned i = 0; i < body->nfields; i++)
		if (strcmp(body->fields[i].name, field->name) == 0)
			return fail(c, "A name is there twice");
	if (!take(c, ':'))
		return fail(c, "A colon is missing");
	body->nfields++;
	return read_value(c, field);
}

bool
qdb_body_parse(const char *text, QdbBody *body, char *why)
{
	Cursor		c;

	c.p = c.start = (const unsigned char *) text;

	c.why = why;
	memset(body, 0, sizeof(*body));
	why[0] = '\0';
	skip_space(&c);
	if (*c.p == '\0')
		return true;
	if (!take(&c, '{'))
		return fail(&c, "There is no object");
	if (!take(&c, '}'))
	{
		for (;;)
		{
			if (!read_field(&c, body))
				return false;
			if (!take(&c, ','))
				break;
		}
		if (!take(&c, '}'))
			return fail(&c, "The object has no end");
	}
	skip_space(&c);
	return *c.p == '\0' || fail(&c, "Something follows the object");
}

const QdbBodyField *
qdb_body_field(const QdbBody *body, const char *name)
{
	for (unsigned i = 0; i < body->nfields; i++)
		if (strcmp(body->fields[i].name, name) == 0)
			return body->fields[i].kind != QDB_BODY_NULL ? &body->fields[i] : NULL;
	return NULL;
}

bool
qdb_body_integer(const QdbBodyField *field, int64_t *value)
{
	const char *p = field->text;
	bool		negative = *p == '-';
	int64_t		sum = 0;

	if (field->kind != QDB_BODY_NUMBER || field->too_long)
		return false;
	if (negative)
		p++;
	for (; *p != '\0'; p++)
	{
		if (*p < '0' || *p > '9' || sum < INT64_MIN / 10)
			return false;
		/* Below zero, where there is one more. */
		sum = sum * 10;
		if (sum < INT64_MIN + (*p - '0'))
			return false;
		sum -= *p - '0';
	}
	if (!negative && sum == INT64_MIN)
		return false;
	*value = negative ? sum : -sum;
	return true;
}
