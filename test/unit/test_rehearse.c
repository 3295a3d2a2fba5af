/*-------------------------------------------------------------------------
 *
 * test_rehearse.c
 *		Unit tests of what a failover would cost.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <string.h>

#include "core/rehearse.h"
#include "fixture.h"

static QdbRehearsalNode nodes[3];
static QdbRehearsal r;

static void
begin(void)
{
	make_cluster(3);
	for (uint64_t i = 0; i < 3; i++)
		nodes[i] = (QdbRehearsalNode) {i + 1, true, "", 1000, 5 * MS};
	nodes[0].lag_us = 0;
}

static void
ask(uint64_t target)
{
	qdb_rehearse(&s, nodes, 3, target, &r);
}

static void
the_one_with_the_most_wal_would_be_chosen(void)
{
	begin();
	nodes[1].wal_end = 900;
	ask(2);
	CHECK(r.chosen == 3 && r.bytes_behind == 100 && r.loss_bytes == 0);
	CHECK(strstr(r.why_not, "has 100 bytes more") != NULL);
	ask(3);
	CHECK(r.chosen == 3 && r.bytes_behind == 0 && r.why_not[0] == '\0');
}

static void
ties_go_by_priority(void)
{
	begin();
	ask(2);
	CHECK(r.chosen == 2 && r.why_not[0] == '\0');
	s.members[2].priority = 200;
	ask(2);
	CHECK(r.chosen == 3 && strstr(r.why_not, "comes first") != NULL);
	s.members[1].priority = s.members[2].priority = 0;
	ask(2);
	CHECK(r.chosen == 0);
}

static void
who_cannot_says_why(void)
{
	begin();
	ask(1);
	CHECK(strcmp(r.why_not, "it is the primary") == 0 && r.failover_us == -1);
	nodes[1].why_not = "its disk is full";
	ask(2);
	CHECK(strcmp(r.why_not, "its disk is full") == 0 && r.chosen == 3);
	nodes[2].connected = false;
	ask(2);
	CHECK(r.chosen == 0);
	nodes[1].why_not = "";
	ask(2);
	CHECK(strstr(r.why_not, "no majority") != NULL);
	nodes[2].connected = true;
	s.settings.auto_failover = false;
	ask(2);
	CHECK(strstr(r.why_not, "paused") != NULL);
}

static void
waits_are_those_of_the_protocol(void)
{
	begin();
	s.settings.failover_ms = 800;
	s.grants[0].lease_ms = 400;
	ask(2);
	CHECK(r.failover_us == 805 * MS && r.switchover_us == 5 * MS && r.replay_lag_us == 5 * MS);
	s.grants[0].lease_ms = 2000;
	ask(2);
	CHECK(r.failover_us == 2005 * MS);
	nodes[1].lag_us = -1;
	ask(2);
	CHECK(r.failover_us == -1 && r.switchover_us == -1);
}

static void
async_loses_what_is_behind(void)
{
	begin();
	s.settings.async = true;
	s.settings.max_lag_bytes = 500;
	nodes[1].wal_end = 700;
	nodes[2].wal_end = 600;
	ask(2);
	CHECK(r.loss_bytes == 300 && r.why_not[0] == '\0');
	nodes[1].wal_end = nodes[2].wal_end = 400;
	ask(2);
	CHECK(r.loss_bytes == 600 && strstr(r.why_not, "max_lag_on_failover") != NULL);
	nodes[0].wal_end = 0;
	ask(2);
	CHECK(r.loss_bytes == -1 && r.bytes_behind == -1);
}

static const Test tests[] = {
	TEST(the_one_with_the_most_wal_would_be_chosen),
	TEST(ties_go_by_priority),
	TEST(who_cannot_says_why),
	TEST(waits_are_those_of_the_protocol),
	TEST(async_loses_what_is_behind),
};

int
main(void)
{
	return run_tests(tests, (int) (sizeof(tests) / sizeof(tests[0])));
}
