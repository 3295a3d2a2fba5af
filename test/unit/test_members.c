/*-------------------------------------------------------------------------
 *
 * test_members.c
 *		Unit tests of what somebody gets who asks for a role or a removal.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <string.h>

#include "core/membership.h"
#include "core/quorum.h"
#include "fixture.h"

static char why[QDB_REASON_SIZE];
static char hint[QDB_REASON_SIZE];
static char warning[QDB_REASON_SIZE];

static QdbResult
wish(uint64_t member, bool removal, int role, bool connected)
{
	QdbMemberWish w = {member, removal, role, connected};

	return qdb_plan_wish(&s, &w, &c, why, hint, warning);
}

static bool
done(uint64_t member, bool removal, int role)
{
	QdbMemberWish w = {member, removal, role, true};

	return qdb_wish_is_done(&s, &w);
}

static void
add_replica(uint64_t id)
{
	add_member(id);
	s.tokens[0].role = QDB_ROLE_REPLICA;
	APPLY(QDB_OK);
	CHECK(qdb_member_by_id(&s, id)->role == QDB_ROLE_REPLICA);
}

static void
replica_votes_only_after_it_was_a_learner(void)
{
	make_cluster(3);
	add_replica(4);
	set_role(4, QDB_ROLE_VOTER);
	APPLY(QDB_NOT_VOTER);
	CHECK(wish(4, false, QDB_ROLE_VOTER, true) == QDB_OK);
	CHECK(c.type == QDB_CMD_MEMBER_ROLE && c.member.role == QDB_ROLE_LEARNER && c.flag);
	CHECK(strstr(warning, "4 voters, which survive the loss of 1, as 3 would") != NULL);
	APPLY(QDB_OK);
	CHECK(wish(4, false, QDB_ROLE_VOTER, true) == QDB_UNCHANGED && !done(4, false, QDB_ROLE_VOTER));
	set_role(4, QDB_ROLE_VOTER);
	APPLY(QDB_OK);
	CHECK(!done(4, false, QDB_ROLE_VOTER));
	close_change();
	APPLY(QDB_OK);
	CHECK(done(4, false, QDB_ROLE_VOTER));
}

/* A learner that waits for a partner is not made a voter before it has caught up. */
static void
waiting_learner_is_only_sent_alone(void)
{
	make_cluster(3);
	add_member(4);
	APPLY(QDB_OK);
	CHECK(wish(4, false, QDB_ROLE_VOTER, true) == QDB_OK);
	CHECK(c.member.role == QDB_ROLE_LEARNER && c.flag && warning[0] != '\0');
	add_member(5);
	APPLY(QDB_OK);
	/* the other one makes the number odd again */
	CHECK(wish(4, false, QDB_ROLE_VOTER, true) == QDB_OK && warning[0] == '\0');
	CHECK(wish(4, false, QDB_ROLE_REPLICA, true) == QDB_OK && c.member.role == QDB_ROLE_REPLICA);
	APPLY(QDB_OK);
	CHECK(!s.change_open && done(4, false, QDB_ROLE_REPLICA));
}

static void
even_numbers_are_told(void)
{
	make_cluster(3);
	CHECK(wish(3, false, QDB_ROLE_REPLICA, true) == QDB_OK && strstr(warning, "2 voters") != NULL);
	CHECK(wish(3, true, 0, true) == QDB_OK && strstr(warning, "survive the loss of 0, as 1 would") != NULL);
	make_cluster(4);
	CHECK(wish(4, true, 0, true) == QDB_OK && warning[0] == '\0');
	add_replica(5);
	CHECK(wish(5, true, 0, true) == QDB_OK && warning[0] == '\0' && c.type == QDB_CMD_MEMBER_REMOVE);
}

static void
primary_and_last_voter_stay(void)
{
	make_cluster(3);
	CHECK(wish(1, true, 0, true) == QDB_HOLDS_SEAT && strstr(hint, "quantadb_promote") != NULL);
	CHECK(wish(1, false, QDB_ROLE_REPLICA, true) == QDB_HOLDS_SEAT);
	make_cluster(1);
	CHECK(wish(1, true, 0, true) == QDB_LAST_VOTER && hint[0] != '\0');
	CHECK(wish(9, true, 0, true) == QDB_UNCHANGED);
	CHECK(wish(9, false, QDB_ROLE_VOTER, true) == QDB_NO_MEMBER);
}

/* Of two voters the one that goes still acks under the number before. */
static void
living_voter_leaves_in_two_changes(void)
{
	QdbAck		acks[] = {{1, 500}, {2, 500}};

	make_cluster(2);
	CHECK(wish(2, true, 0, true) == QDB_OK && c.type == QDB_CMD_MEMBER_ROLE && c.member.role == QDB_ROLE_REPLICA);
	APPLY(QDB_OK);
	CHECK(s.change_open && qdb_quorum_lsn(&s, acks, 2) == 500 && qdb_quorum_lsn(&s, acks, 1) == 0);
	CHECK(wish(2, true, 0, true) == QDB_OK && c.type == QDB_CMD_MEMBER_REMOVE);
	APPLY(QDB_CHANGE_OPEN);
	close_change();
	APPLY(QDB_OK);
	CHECK(wish(2, true, 0, true) == QDB_OK);
	APPLY(QDB_OK);
	CHECK(done(2, true, 0) && qdb_quorum_lsn(&s, acks, 1) == 500);
}

static void
dead_voter_leaves_at_once(void)
{
	make_cluster(3);
	CHECK(wish(3, true, 0, false) == QDB_OK && c.type == QDB_CMD_MEMBER_REMOVE);
	APPLY(QDB_OK);
	CHECK(s.change_open && s.has_removed && !done(3, true, 0));
	close_change();
	APPLY(QDB_OK);
	CHECK(done(3, true, 0));
}

/* Made for a number that has passed, it fits nothing any more (I13). */
static void
wish_fits_its_number_only(void)
{
	QdbCommand	old;

	make_cluster(5);
	CHECK(wish(5, false, QDB_ROLE_REPLICA, true) == QDB_OK);
	old = c;
	CHECK(wish(4, false, QDB_ROLE_REPLICA, true) == QDB_OK);
	APPLY(QDB_OK);
	c = old;
	APPLY(QDB_STALE);
	CHECK(wish(5, false, QDB_ROLE_REPLICA, true) == QDB_OK);
	APPLY(QDB_CHANGE_OPEN);
}

/* The survivor keeps what tells whose its WAL is, and nothing that binds it to the others. */
static void
survivor_begins_alone(void)
{
	QdbRecovery r = {.member = 3,.promised = 7,.skip_timelines = 9,.time_us = 5};
	QdbState	before;
	uint64_t	ids[] = {3};

	make_cluster(3);
	set_role(2, QDB_ROLE_REPLICA);
	APPLY(QDB_OK);
	s.settings.auto_failover = false;
	before = s;
	CHECK(qdb_state_recover(&s, &r) == QDB_BAD_VALUE && memcmp(&s, &before, sizeof(s)) == 0);
	strcpy(r.cluster_id, "21111111-2222-3333-4444-555555555555");
	strcpy(r.cluster_name, "shop");
	r.member = 9;
	CHECK(qdb_state_recover(&s, &r) == QDB_NO_MEMBER);
	r.member = 3;
	s.members[2].priority = 0;
	CHECK(qdb_state_recover(&s, &r) == QDB_PRIORITY_ZERO);
	s.members[2].priority = 100;
	CHECK(qdb_state_recover(&s, &r) == QDB_OK);
	CHECK(s.nmembers == 1 && s.members[0].id == 3 && !s.change_open && qdb_is_majority(&s, ids, 1));
	CHECK(s.epoch == 8 && s.epoch_open && s.next_member_id == before.next_member_id);
	CHECK(s.ngrants == before.ngrants && s.settings.auto_failover);

	/* the rest is a failover among one voter, onto a timeline that nobody else was given */
	report(3, 1, 0x5000);
	APPLY(QDB_OK);
	seat(3);
	c.grant.timeline = before.greatest_timeline + 1;
	APPLY(QDB_STALE);
	c.grant.timeline = before.greatest_timeline + 10;
	APPLY(QDB_OK);
}

static const Test tests[] = {
	TEST(replica_votes_only_after_it_was_a_learner),
	TEST(waiting_learner_is_only_sent_alone),
	TEST(even_numbers_are_told),
	TEST(primary_and_last_voter_stay),
	TEST(living_voter_leaves_in_two_changes),
	TEST(dead_voter_leaves_at_once),
	TEST(wish_fits_its_number_only),
	TEST(survivor_begins_alone),
};

int
main(void)
{
	return run_tests(tests, (int) (sizeof(tests) / sizeof(tests[0])));
}
