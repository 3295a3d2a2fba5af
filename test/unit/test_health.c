/*-------------------------------------------------------------------------
 *
 * test_health.c
 *		Unit tests of when a node counts as sick, and when it gives its seat up.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <string.h>

#include "core/health.h"
#include "fixture.h"

static QdbHealth health;
static QdbSigns signs;
static const QdbSignLimits limits = {2000 * MS, 64 << 20};

static void
begin(void)
{
	memset(&health, 0, sizeof(health));
	signs = (QdbSigns)
	{
		.now_us = NOW,.flush = 100,.free_bytes = UINT64_MAX
	};
	(void) qdb_health_look(&health, &signs, &limits);
}

/* Looks every 100 ms for so long; the sickness at the end. */
static QdbSickness
pass(int ms)
{
	for (int i = 0; i < ms; i += 100)
	{
		signs.now_us += 100 * MS;
		(void) qdb_health_look(&health, &signs, &limits);
	}
	return health.sickness;
}

static void
a_write_that_does_not_end_is_a_sickness(void)
{
	char text[	200];

	begin();
	signs.writing = true;
	CHECK(pass(1900) == QDB_WELL);
	CHECK(pass(300) == QDB_SICK_WAL);
	qdb_health_text(&health, &signs, &limits, text, sizeof(text));
	CHECK(strstr(text, "does not reach the disk") != NULL);
}

static void
writes_that_end_are_none(void)
{
	begin();
	signs.writing = true;
	for (int i = 0; i < 100; i++)
	{
		signs.flush++;
		CHECK(pass(300) == QDB_WELL);
	}
}

static void
slow_writes_add_up(void)
{
	int			i;

	begin();
	signs.writing = true;
	for (i = 0; i < 20 && health.sickness == QDB_WELL; i++)
	{
		signs.flush++;
		(void) pass(1500);
	}
	CHECK(health.sickness == QDB_SICK_WAL && i > 2);
}

static void
nobody_who_waits_nothing_to_say(void)
{
	begin();
	CHECK(pass(60000) == QDB_WELL);
}

static void
time_that_was_not_watched_does_not_count(void)
{
	begin();
	signs.writing = true;
	(void) pass(300);
	signs.now_us += 60000 * MS;
	CHECK(pass(100) == QDB_WELL);
	CHECK(pass(1300) == QDB_WELL);
	CHECK(pass(600) == QDB_SICK_WAL);
}

static void
a_sick_node_must_be_well_for_a_while(void)
{
	char text[	200];

	begin();
	signs.writing = true;
	CHECK(pass(2500) == QDB_SICK_WAL);
	signs.writing = false;
	CHECK(pass(9000) == QDB_SICK_WAL);
	qdb_health_text(&health, &signs, &limits, text, sizeof(text));
	CHECK(strstr(text, "not long enough ago") != NULL);
	CHECK(pass(2000) == QDB_WELL);
	qdb_health_text(&health, &signs, &limits, text, sizeof(text));
	CHECK(text[0] == '\0');
}

static void
a_full_disk_needs_more_room_than_it_lost(void)
{
	begin();
	signs.free_bytes = 63 << 20;
	CHECK(pass(500) == QDB_WELL);
	CHECK(pass(1000) == QDB_SICK_DISK);
	signs.free_bytes = 100 << 20;
	CHECK(pass(30000) == QDB_SICK_DISK);
	signs.free_bytes = 128 << 20;
	CHECK(pass(9000) == QDB_SICK_DISK);
	CHECK(pass(2000) == QDB_WELL);
	CHECK(pass(2000) == QDB_WELL);
	signs.free_bytes = 100 << 20;
	CHECK(pass(30000) == QDB_WELL);
}

static void
a_disk_that_is_full_at_the_start_counts_at_once(void)
{
	memset(&health, 0, sizeof(health));
	signs = (QdbSigns)
	{
		.now_us = NOW,.flush = 100,.free_bytes = 63 << 20
	};
	CHECK(qdb_health_look(&health, &signs, &limits) == QDB_SICK_DISK);
}

static void
a_postmaster_that_does_not_answer_is_sick(void)
{
	begin();
	signs.asked_us = signs.now_us;
	CHECK(pass(1900) == QDB_WELL);
	CHECK(pass(200) == QDB_SICK_POSTMASTER);
	begin();
	for (int i = 0; i < 20; i++)
	{
		signs.asked_us = signs.now_us;
		CHECK(pass(1500) == QDB_WELL);
		signs.asked_us = 0;
		CHECK(pass(100) == QDB_WELL);
	}
}

static void
limits_of_zero_switch_it_off(void)
{
	const QdbSignLimits none = {0};

	begin();
	signs.writing = true;
	signs.free_bytes = 0;
	signs.asked_us = signs.now_us;
	for (int i = 0; i < 1000; i++)
	{
		signs.now_us += 100 * MS;
		CHECK(qdb_health_look(&health, &signs, &none) == QDB_WELL);
	}
}

static void
a_seat_is_given_up_only_to_somebody(void)
{
	QdbLeaderView v = {.self = 1,.npeers = 3};

	make_cluster(3);
	for (uint64_t i = 0; i < 3; i++)
		v.peers[i] = (QdbPeerView) {.member = i + 1,.connected = true,.able = true,.boot = 1};
	CHECK(qdb_health_gives_up(&s, &v, false));
	v.peers[1].able = v.peers[2].able = false;
	CHECK(!qdb_health_gives_up(&s, &v, true));
	v.peers[2].able = true;
	CHECK(qdb_health_gives_up(&s, &v, true));
	v.peers[1].connected = false;
	CHECK(!qdb_health_gives_up(&s, &v, true));
	v.peers[1].connected = true;
	s.settings.auto_failover = false;
	CHECK(!qdb_health_gives_up(&s, &v, true));
	s.settings.auto_failover = true;
	s.settings.async = true;
	CHECK(!qdb_health_gives_up(&s, &v, false));
	CHECK(qdb_health_gives_up(&s, &v, true));
	v.self = 2;
	CHECK(!qdb_health_gives_up(&s, &v, true));
}

static const Test tests[] = {
	TEST(a_write_that_does_not_end_is_a_sickness),
	TEST(writes_that_end_are_none),
	TEST(slow_writes_add_up),
	TEST(nobody_who_waits_nothing_to_say),
	TEST(time_that_was_not_watched_does_not_count),
	TEST(a_sick_node_must_be_well_for_a_while),
	TEST(a_full_disk_needs_more_room_than_it_lost),
	TEST(a_disk_that_is_full_at_the_start_counts_at_once),
	TEST(a_postmaster_that_does_not_answer_is_sick),
	TEST(limits_of_zero_switch_it_off),
	TEST(a_seat_is_given_up_only_to_somebody),
};

int
main(void)
{
	return run_tests(tests, (int) (sizeof(tests) / sizeof(tests[0])));
}
