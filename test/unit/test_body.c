/*-------------------------------------------------------------------------
 *
 * test_body.c
 *		Unit tests of the bodies of HTTP control calls.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <string.h>

#include "http/body.h"
#include "fixture.h"

static QdbBody body;
static const char *why;

static bool
parses(const char *text)
{
	why = qdb_body_parse(text, &body);
	return why == NULL;
}

static void
plain_values_are_read(void)
{
	int64_t		n;

	CHECK(parses(" { \"node\" : \"n2\" , \"force\":true,\"ttl\": 60 , \"x\": null }\r\n"));
	CHECK(body.nfields == 4);
	CHECK(strcmp(qdb_body_field(&body, "node")->text, "n2") == 0);
	CHECK(qdb_body_field(&body, "force")->flag);
	CHECK(qdb_body_integer(qdb_body_field(&body, "ttl"), &n) && n == 60);
	CHECK(qdb_body_field(&body, "x") == NULL && qdb_body_field(&body, "y") == NULL);
	CHECK(!qdb_body_integer(qdb_body_field(&body, "node"), &n));
	CHECK(parses("") && body.nfields == 0);
	CHECK(parses(" {} ") && body.nfields == 0);
}

static void
texts_lose_their_escapes(void)
{
	CHECK(parses("{\"a\": \"q\\\" b\\\\ s\\/ n\\n \\u00e4\\u20ac\\ud83d\\ude00\"}"));
	CHECK(strcmp(body.fields[0].text, "q\" b\\ s/ n\n \xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80") == 0);
}

static void
what_is_no_object_is_refused(void)
{
	static const char *const bad[] = {"[]", "x", "{", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,}", "{\"a\":1}}", "{,}", "{a:1}",
		"{\"a\":{}}", "{\"a\":[1]}", "{\"a\":1,\"a\":2}", "{\"a\":01}", "{\"a\":.5}", "{\"a\":1.}", "{\"a\":1e}", "{\"a\":-}",
		"{\"a\":tru}", "{\"a\":\"b}", "{\"a\":\"\\x\"}", "{\"a\":\"\\u12\"}", "{\"a\":\"\\ud800\"}", "{\"a\":\"\\udc00\"}",
		"{\"a\":\"\\ud800\\u0041\"}", "{\"a\":\"\\u0000\"}", "{\"a\":\"\n\"}", "{\"a\":\"\x80\"}", "{\"a\":\"\xc0\x80\"}",
		"{\"a\":\"\xed\xa0\x80\"}", "{\"a\":\"\xf4\x90\x80\x80\"}", "{\"a\":\"\xe2\x82\"}", "{\"a\":1} x"};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
	{
		if (parses(bad[i]) || why[0] == '\0')
		{
			printf("# %s\n", bad[i]);
			failed = true;
		}
	}
	CHECK(!parses("{\"a\":1,\"b\":1,\"c\":1,\"d\":1,\"e\":1,\"f\":1,\"g\":1,\"h\":1,\"i\":1}"));
}

static void
what_is_too_long_is_said_to_be(void)
{
	char		text[2 * QDB_VALUE_SIZE + 16] = "{\"a\":\"";
	size_t		start = strlen(text);

	memset(text + start, 'x', QDB_VALUE_SIZE);
	strcpy(text + start + QDB_VALUE_SIZE, "\"}");
	CHECK(parses(text) && body.fields[0].too_long && body.fields[0].text[0] == '\0');
	strcpy(text + start + QDB_VALUE_SIZE - 1, "\"}");
	CHECK(parses(text) && !body.fields[0].too_long && strlen(body.fields[0].text) == QDB_VALUE_SIZE - 1);
	memset(text, 'n', sizeof(text));
	memcpy(text, "{\"", 2);
	strcpy(text + 2 + QDB_NAME_SIZE, "\": 1}");
	CHECK(!parses(text));
}

static void
integers_end_where_they_do(void)
{
	int64_t		n;

	CHECK(parses("{\"a\": 9223372036854775807, \"b\": -9223372036854775808, \"c\": 9223372036854775808, \"d\": 1.0,"
				 "\"e\": -9223372036854775809, \"f\": 99999999999999999999, \"g\": -0}"));
	CHECK(qdb_body_integer(&body.fields[0], &n) && n == INT64_MAX);
	CHECK(qdb_body_integer(&body.fields[1], &n) && n == INT64_MIN);
	for (int i = 2; i < 6; i++)
		CHECK(!qdb_body_integer(&body.fields[i], &n));
	CHECK(qdb_body_integer(&body.fields[6], &n) && n == 0);
}

static const Test tests[] = {
	TEST(plain_values_are_read),
	TEST(texts_lose_their_escapes),
	TEST(what_is_no_object_is_refused),
	TEST(what_is_too_long_is_said_to_be),
	TEST(integers_end_where_they_do),
};

int
main(void)
{
	return run_tests(tests, (int) (sizeof(tests) / sizeof(tests[0])));
}
