/*-------------------------------------------------------------------------
 *
 * test_peer.c
 *		Unit tests of what members tell each other, and of names in certificates.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <string.h>

#include "core/peer.h"
#include "fixture.h"

static void
the_longest_heartbeat_fits(void)
{
	static QdbHeartbeat beat;
	static QdbHeartbeat got;
	uint8_t		buf[QDB_PEER_MAX_BYTES];
	uint32_t	length = sizeof(buf);

	memset(beat.state, 'a', sizeof(beat.state) - 1);
	memset(beat.why_not, 'b', sizeof(beat.why_not) - 1);
	memset(beat.step, 'c', sizeof(beat.step) - 1);
	beat.limits[QDB_NLIMITS - 1] = -1;
	beat.primary_age_us = QDB_BEAT_NEVER;
	beat.ncaught_up = QDB_MAX_MEMBERS;
	beat.caught_up[QDB_MAX_MEMBERS - 1] = 99;
	CHECK(qdb_heartbeat_encode(&beat, buf, &length));
	CHECK(qdb_heartbeat_decode(buf, length, &got));
	CHECK(memcmp(&beat, &got, sizeof(beat)) == 0);
	for (uint32_t n = 0; n < length; n++)
		CHECK(!qdb_heartbeat_decode(buf, n, &got));
}

/* The count is the byte before the ids. */
static void
a_heartbeat_with_too_many_learners_is_refused(void)
{
	static QdbHeartbeat beat;
	static QdbHeartbeat got;
	uint8_t		buf[QDB_PEER_MAX_BYTES];
	uint32_t	length = sizeof(buf);

	CHECK(qdb_heartbeat_encode(&beat, buf, &length));
	memset(buf + length, 0, 8 * (QDB_MAX_MEMBERS + 1));
	buf[length - 1] = QDB_MAX_MEMBERS;
	CHECK(qdb_heartbeat_decode(buf, length + 8 * QDB_MAX_MEMBERS, &got));
	buf[length - 1] = QDB_MAX_MEMBERS + 1;
	CHECK(!qdb_heartbeat_decode(buf, length + 8 * (QDB_MAX_MEMBERS + 1), &got));
	CHECK(got.ncaught_up == 0);
}

static void
a_proposal_is_never_empty_and_never_longer_than_a_command(void)
{
	static uint8_t buf[QDB_COMMAND_MAX_BYTES + 16];
	QdbProposal got;

	CHECK(!qdb_proposal_decode(buf, 7, &got));
	CHECK(!qdb_proposal_decode(buf, 8, &got));
	CHECK(qdb_proposal_decode(buf, 9, &got) && got.length == 1 && got.command == buf + 8);
	CHECK(qdb_proposal_decode(buf, 8 + QDB_COMMAND_MAX_BYTES, &got));
	CHECK(!qdb_proposal_decode(buf, 9 + QDB_COMMAND_MAX_BYTES, &got));
}

static void
an_answer_to_a_read_is_yes_or_no(void)
{
	QdbRead		read = {.ticket = 1,.epoch = 2,.ok = true,.lsn = 3};
	QdbRead		got;
	uint8_t		buf[32];
	uint32_t	length = sizeof(buf);

	CHECK(qdb_read_answer_encode(&read, buf, &length));
	CHECK(qdb_read_answer_decode(buf, length, &got) && got.ok && got.lsn == 3);
	buf[16] = 2;
	CHECK(!qdb_read_answer_decode(buf, length, &got));
}

static bool
parse(const char *text, size_t length)
{
	QdbCertName name;

	return qdb_cert_uri_parse((const uint8_t *) text, length, &name);
}

static void
a_name_in_a_certificate_is_written_in_one_way(void)
{
	static const char good[] = "quantadb:11111111-2222-3333-4444-555555555555:3:77:2";
	QdbCertName name;

	CHECK(qdb_cert_uri_parse((const uint8_t *) good, strlen(good), &name));
	CHECK(name.member == 3 && name.incarnation == 77 && name.rotation == 2);
	/* Bytes behind a zero are bytes all the same. */
	CHECK(!parse("quantadb:1:3:77:2\0:9", 20));
	CHECK(!parse(good, sizeof(good)));
	CHECK(!parse("quantadb:1:03:77:2", 18));
	CHECK(!parse("quantadb:1:-3:77:2", 18));
	CHECK(!parse("quantadb:1:0:77:2", 17));
	CHECK(!parse("quantadb:1:18446744073709551616:77:2", 36));
	CHECK(!parse("", 0));
}

static bool
host_is(const char *url, const char *host)
{
	size_t		length;
	const char *found = qdb_url_host(url, &length);

	return length == strlen(host) && memcmp(found, host, length) == 0;
}

static void
logs_show_the_host_of_a_webhook_and_no_secret(void)
{
	CHECK(host_is("https://user:pass@h.example:8443/secret?x#y", "h.example:8443"));
	CHECK(host_is("http://[2001:db8::1]?a@b", "[2001:db8::1]"));
	CHECK(host_is("http://h", "h"));
	CHECK(host_is("no url", "no url"));
	CHECK(host_is("", ""));
}

static const Test tests[] = {
	TEST(the_longest_heartbeat_fits),
	TEST(a_heartbeat_with_too_many_learners_is_refused),
	TEST(a_proposal_is_never_empty_and_never_longer_than_a_command),
	TEST(an_answer_to_a_read_is_yes_or_no),
	TEST(a_name_in_a_certificate_is_written_in_one_way),
	TEST(logs_show_the_host_of_a_webhook_and_no_secret),
};

int
main(void)
{
	return run_tests(tests, (int) (sizeof(tests) / sizeof(tests[0])));
}
