/*-------------------------------------------------------------------------
 *
 * test_join.c
 *		Unit tests of what strangers send: JOIN and its answer.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <string.h>

#include "core/join.h"
#include "fixture.h"

static void
a_join_comes_as_it_was_sent(void)
{
	QdbJoin		join = {.command_format = 1,.state_format = 2,.token_id = 3,.system_identifier = 4,.in_recovery = true};
	QdbJoin		got;
	uint8_t		buf[QDB_JOIN_MAX];
	uint32_t	length = sizeof(buf);

	strcpy(join.member.name, "n2");
	strcpy(join.member.host, "host");
	join.member.priority = -1;
	join.limits[QDB_NLIMITS - 1] = 7;
	CHECK(qdb_join_encode(&join, buf, &length));
	CHECK(qdb_join_decode(buf, length, &got));
	CHECK(got.token_id == 3 && got.in_recovery && got.member.priority == -1 && got.limits[QDB_NLIMITS - 1] == 7);
	CHECK(strcmp(got.member.host, "host") == 0);
	for (uint32_t n = 0; n < length; n++)
		CHECK(!qdb_join_decode(buf, n, &got));
	/* Another version's message is another one, but says whose it is. */
	CHECK(!qdb_join_decode(buf, 8, &got) && got.command_format == 1 && got.state_format == 2);
}

static void
only_a_member_gets_the_state(void)
{
	static QdbJoinResult result = {.why = "no"};
	static QdbJoinResult got;
	uint8_t		buf[512];
	uint32_t	length = sizeof(buf);

	CHECK(qdb_join_result_encode(&result, buf, &length));
	CHECK(qdb_join_result_decode(buf, length, &got) && got.member == 0 && strcmp(got.why, "no") == 0);
	buf[length] = 1;
	CHECK(!qdb_join_result_decode(buf, length + 1, &got));
	result.member = 5;
	length = sizeof(buf);
	CHECK(!qdb_join_result_encode(&result, buf, &length));
	CHECK(!qdb_join_result_decode(buf, length, &got));
	result.state = (const uint8_t *) "\1";
	result.state_length = 1;
	length = sizeof(buf);
	CHECK(qdb_join_result_encode(&result, buf, &length));
	CHECK(qdb_join_result_decode(buf, length, &got) && got.state_length == 1 && got.state[0] == 1);
	CHECK(!qdb_join_result_decode(buf, length - 1, &got));
}

static const Test tests[] = {
	TEST(a_join_comes_as_it_was_sent),
	TEST(only_a_member_gets_the_state),
};

int
main(void)
{
	return run_tests(tests, (int) (sizeof(tests) / sizeof(tests[0])));
}
