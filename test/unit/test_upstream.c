/*-------------------------------------------------------------------------
 *
 * test_upstream.c
 *		Unit tests of from whom a replica without a vote streams, and whom a
 *		replica that passes WAL on serves.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <string.h>

#include "core/upstream.h"
#include "fixture.h"

#define HOLDER		1
#define NAMED		2
#define SELF		4

static QdbUpstream upstream;
static QdbUpstreamView view;
static const char *left;

/* n1 holds the seat of epoch 7, n2 streams from it, and n4 shall stream from n2. */
static void
begin(void)
{
	memset(&upstream, 0, sizeof(upstream));
	view = (QdbUpstreamView)
	{
		.now_us = NOW,.beat_us = 100 * MS,.self = SELF,.epoch = 7,.holder = HOLDER,.opened = true,
		.receiver_epoch = 7,.receiver_member = HOLDER,
		.named = NAMED,.connected = true,.heard_us = NOW,.streaming = true,.promised = 7
	};
}

/* Asked every 100 ms for so long, the upstream heard of each time unless it is silent. */
static uint64_t
pass(int ms, bool silent)
{
	uint64_t	source = qdb_upstream_choose(&upstream, &view, &left);

	for (int i = 0; i < ms && left == NULL; i += 100)
	{
		view.now_us += 100 * MS;
		if (!silent)
			view.heard_us = view.now_us;
		source = qdb_upstream_choose(&upstream, &view, &left);
	}
	return source;
}

/* The upstream is the target, and the receiver is there. */
static void
begin_at_upstream(void)
{
	begin();
	CHECK(pass(1000, false) == NAMED);
	view.receiver_member = NAMED;
	CHECK(pass(5000, false) == NAMED);
	CHECK(left == NULL);
}

static void
it_has_to_be_fit_for_a_second(void)
{
	begin();
	CHECK(pass(900, false) == HOLDER);
	view.streaming = false;
	CHECK(pass(0, false) == HOLDER);
	view.streaming = true;
	CHECK(pass(900, false) == HOLDER);
	CHECK(pass(100, false) == NAMED);
	CHECK(left == NULL);
}

static void
unfit_is_who_cannot_pass_wal_on(void)
{
	for (int i = 0; i < 6; i++)
	{
		begin();
		if (i == 0)
			view.opened = false;
		else if (i == 1)
			view.connected = false;
		else if (i == 2)
			view.heard_us = NOW - 1000 * MS;
		else if (i == 3)
			view.wants_upstream = true;
		else if (i == 4)
			view.streaming = false;
		else
			view.promised = 8;
		CHECK(pass(10000, i == 2) == HOLDER);
		CHECK(left == NULL);
	}
}

static void
one_that_is_nobody_the_holder_or_self_is_none(void)
{
	uint64_t	none[] = {0, HOLDER, SELF};

	for (int i = 0; i < 3; i++)
	{
		begin();
		view.named = none[i];
		view.receiver_epoch = 0;
		CHECK(pass(5000, false) == HOLDER);
		CHECK(left == NULL);
		begin_at_upstream();
		view.named = none[i];
		CHECK(pass(0, false) == HOLDER);
		CHECK(left == NULL);
	}
}

static void
two_seconds_without_wal_and_it_is_left(void)
{
	begin();
	CHECK(pass(1000, false) == NAMED);
	CHECK(pass(2000, false) == NAMED);
	CHECK(pass(100, false) == HOLDER);
	CHECK(left != NULL && strcmp(left, "it does not bring WAL") == 0);

	/* A receiver of an earlier epoch brings none of this one. */
	begin_at_upstream();
	view.receiver_epoch = 6;
	CHECK(pass(2100, false) == HOLDER);
	CHECK(left != NULL);
}

static void
moments_without_wal_do_not_add_up(void)
{
	begin_at_upstream();
	for (int i = 0; i < 20; i++)
	{
		view.receiver_epoch = 0;
		CHECK(pass(1500, false) == NAMED);
		view.receiver_epoch = 7;
		CHECK(pass(100, false) == NAMED);
	}
}

static void
one_that_failed_is_not_tried_for_a_while(void)
{
	begin();
	CHECK(pass(1000, false) == NAMED);
	CHECK(pass(2100, false) == HOLDER);
	CHECK(left != NULL);
	CHECK(pass(15900, false) == HOLDER);
	CHECK(left == NULL);
	CHECK(pass(100, false) == NAMED);
}

static void
one_that_went_away_is_taken_when_it_is_back(void)
{
	begin_at_upstream();
	CHECK(pass(3000, true) == HOLDER);
	CHECK(left != NULL && strcmp(left, "it does not stream itself") == 0);
	CHECK(pass(5000, true) == HOLDER);
	CHECK(pass(0, false) == HOLDER);
	view.heard_us = view.now_us;
	CHECK(pass(1000, false) == NAMED);

	/* Back in the next moment, it settles again. */
	begin_at_upstream();
	CHECK(pass(3000, true) == HOLDER);
	view.heard_us = view.now_us;
	CHECK(pass(900, false) == HOLDER);
	CHECK(pass(100, false) == NAMED);
}

static void
another_name_begins_anew(void)
{
	begin();
	CHECK(pass(1000, false) == NAMED);
	CHECK(pass(2100, false) == HOLDER);
	view.named = 3;
	CHECK(pass(900, false) == HOLDER);
	CHECK(pass(100, false) == 3);

	begin_at_upstream();
	view.named = 3;
	CHECK(pass(900, false) == HOLDER);
	CHECK(pass(100, false) == 3);
}

static void
another_epoch_settles_anew(void)
{
	begin_at_upstream();
	view.epoch = view.promised = view.receiver_epoch = 8;
	CHECK(pass(900, false) == HOLDER);
	CHECK(pass(100, false) == NAMED);

	/* And one that failed failed a moment ago in whatever epoch. */
	begin();
	CHECK(pass(1000, false) == NAMED);
	CHECK(pass(2100, false) == HOLDER);
	view.epoch = view.promised = 8;
	CHECK(pass(10000, false) == HOLDER);
}

static void
a_receiver_leaves_who_is_not_the_target(void)
{
	CHECK(qdb_receiver_is_elsewhere(7, NAMED, 7, HOLDER));
	CHECK(!qdb_receiver_is_elsewhere(7, HOLDER, 7, HOLDER));
	CHECK(!qdb_receiver_is_elsewhere(0, NAMED, 7, HOLDER));
	CHECK(!qdb_receiver_is_elsewhere(7, NAMED, 0, HOLDER));
}

static void
only_who_streams_from_the_holder_passes_on(void)
{
	QdbGrant	grant = {.epoch = 7,.holder = HOLDER};

	CHECK(qdb_may_relay(&grant, 7, 7, HOLDER));
	CHECK(!qdb_may_relay(&grant, 7, 7, NAMED));
	CHECK(!qdb_may_relay(&grant, 0, 0, HOLDER));
	grant.epoch = 0;
	CHECK(!qdb_may_relay(&grant, 0, 0, HOLDER));
	grant.epoch = 7;
	CHECK(!qdb_may_relay(&grant, 6, 6, HOLDER));
	CHECK(!qdb_may_relay(&grant, 7, 6, HOLDER));
	CHECK(!qdb_may_relay(NULL, 7, 7, HOLDER));
}

static void
a_relay_serves_members_without_a_vote(void)
{
	QdbMember	member = {.id = SELF,.role = QDB_ROLE_REPLICA};

	CHECK(qdb_relay_serves(7, 7, &member));
	CHECK(!qdb_relay_serves(7, 6, &member));
	CHECK(!qdb_relay_serves(7, 8, &member));
	CHECK(!qdb_relay_serves(7, 7, NULL));
	member.role = QDB_ROLE_VOTER;
	CHECK(!qdb_relay_serves(7, 7, &member));
	member.role = QDB_ROLE_LEARNER;
	CHECK(!qdb_relay_serves(7, 7, &member));
}

static const Test tests[] = {
	TEST(it_has_to_be_fit_for_a_second),
	TEST(unfit_is_who_cannot_pass_wal_on),
	TEST(one_that_is_nobody_the_holder_or_self_is_none),
	TEST(two_seconds_without_wal_and_it_is_left),
	TEST(moments_without_wal_do_not_add_up),
	TEST(one_that_failed_is_not_tried_for_a_while),
	TEST(one_that_went_away_is_taken_when_it_is_back),
	TEST(another_name_begins_anew),
	TEST(another_epoch_settles_anew),
	TEST(a_receiver_leaves_who_is_not_the_target),
	TEST(only_who_streams_from_the_holder_passes_on),
	TEST(a_relay_serves_members_without_a_vote),
};

int
main(void)
{
	return run_tests(tests, (int) (sizeof(tests) / sizeof(tests[0])));
}
