/*-------------------------------------------------------------------------
 *
 * test_failover.c
 *		Unit tests of what the Raft leader does next, of promotions that are asked
 *		for and of each reason to refuse one, and of handing WAL to a taker.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <string.h>

#include "core/failover.h"
#include "core/resync.h"
#include "fixture.h"

#define UNIX		(INT64_C(1700000000) * 1000 * MS)

static QdbLeaderView v;
static char why[QDB_REASON_SIZE];
static char hint[QDB_REASON_SIZE];

/* Three or so healthy peers; node 2 leads Raft, node 1 holds the seat. */
static void
make_view(uint64_t n)
{
	memset(&v, 0, sizeof(v));
	v.now_us = NOW;
	v.unix_us = UNIX;
	v.leader_since_us = v.epoch_seen_us = NOW - 60000 * MS;
	v.self = 2;
	v.npeers = n;
	for (uint64_t i = 0; i < n; i++)
		v.peers[i] = (QdbPeerView) {i + 1, true, false, NOW - MS, NOW - MS, true, NULL, 1, 1, 0, false};
}

static QdbActionKind
decide(void)
{
	return qdb_failover_decide(&s, &v).kind;
}

/* The primary is silent for everyone. */
static void
silence_primary(void)
{
	v.peers[0].connected = false;
	for (size_t i = 0; i < v.npeers; i++)
		v.peers[i].primary_heard_us = NOW - 900 * MS;
	v.peers[0].heard_us = NOW - 900 * MS;
}

static void
table_while_seated(void)
{
	make_cluster(3);
	make_view(3);
	CHECK(decide() == QDB_ACT_NONE);
	silence_primary();
	CHECK(decide() == QDB_ACT_OPEN_EPOCH && qdb_failover_decide(&s, &v).epoch == 2);
	CHECK(qdb_failover_decide(&s, &v).suspicion);
	v.leader_since_us = NOW - 100 * MS;
	CHECK(decide() == QDB_ACT_NONE);	/* listens first */
	v.peers[0].gone = true;
	CHECK(decide() == QDB_ACT_OPEN_EPOCH);
	make_view(3);
	silence_primary();
	v.peers[2].primary_heard_us = NOW - 100 * MS;
	CHECK(decide() == QDB_ACT_TRANSFER && qdb_failover_decide(&s, &v).member == 3);
	v.peers[2].connected = false;
	CHECK(decide() == QDB_ACT_NONE);	/* no majority here */
	make_view(3);
	silence_primary();
	s.settings.min_failover_ms = 60000;
	s.suspected_us = UNIX - 30000 * MS;
	CHECK(decide() == QDB_ACT_NONE);
	v.peers[0].gone = true;
	CHECK(decide() == QDB_ACT_OPEN_EPOCH);
	make_view(3);
	v.peers[0].boot = 2;
	CHECK(decide() == QDB_ACT_OPEN_EPOCH);
	make_view(3);
	s.seat_released = true;
	CHECK(decide() == QDB_ACT_OPEN_EPOCH);
	s.seat_released = false;
	s.grants[s.ngrants - 1].opened = false;
	CHECK(decide() == QDB_ACT_OPEN_EPOCH);
	v.epoch_seen_us = NOW - 1000 * MS;
	CHECK(decide() == QDB_ACT_NONE);
}

/* The time of the last suspicion is of another node's clock, which may have been ahead. */
static void
a_clock_that_was_ahead_delays_no_failover(void)
{
	make_cluster(3);
	make_view(3);
	silence_primary();
	s.suspected_us = UNIX + INT64_C(3600000) * MS;
	CHECK(s.settings.min_failover_ms == 0);
	CHECK(decide() == QDB_ACT_OPEN_EPOCH);
	s.settings.min_failover_ms = 60000;
	CHECK(decide() == QDB_ACT_OPEN_EPOCH);
	s.suspected_us = UNIX;
	CHECK(decide() == QDB_ACT_NONE);
}

/* Seats that follow each other unopened get longer, so that one is long enough. */
static void
each_unopened_seat_gets_longer(void)
{
	int64_t		ms = 0;

	make_cluster(3);
	make_view(3);
	for (int n = 1; n <= 20; n++)
	{
		open_epoch();
		for (uint64_t id = 1; id <= 3; id++)
		{
			report(id, 1, 0x5000);
			APPLY(QDB_OK);
		}
		seat(1);
		APPLY(QDB_OK);
		ms = n <= 2 ? s.settings.open_ms : n <= 8 ? 2 * ms : ms;
		v.epoch_seen_us = NOW - ms * MS + MS;
		CHECK(decide() == QDB_ACT_NONE);
		v.epoch_seen_us = NOW - ms * MS;
		CHECK(decide() == QDB_ACT_OPEN_EPOCH);
	}
	s.settings.open_ms = 3600000;
	v.epoch_seen_us = NOW - INT64_C(3600000) * 64 * MS + MS;
	CHECK(decide() == QDB_ACT_NONE);
	/* A holder that restarts is not waited for. */
	v.peers[0].boot = 2;
	CHECK(decide() == QDB_ACT_OPEN_EPOCH);
	v.peers[0].boot = 1;
	s.grants[s.ngrants - 1].opened = true;
	CHECK(decide() == QDB_ACT_NONE);
	s.grants[s.ngrants - 1].opened = false;
	s.grants[s.ngrants - 2].opened = true;
	s.settings.open_ms = 5000;
	v.epoch_seen_us = NOW - 5000 * MS;
	CHECK(decide() == QDB_ACT_OPEN_EPOCH);
}

static void
seat_waits_for_rewinds_that_it_takes(void)
{
	make_cluster(3);
	make_view(3);
	s.grants[s.ngrants - 1].opened = false;
	v.peers[1].rewound_us = NOW - 1000 * MS;
	/* Two others could open it, and did not. */
	CHECK(decide() == QDB_ACT_OPEN_EPOCH);
	v.peers[2].connected = false;
	CHECK(decide() == QDB_ACT_NONE);
	v.peers[2].connected = true;
	v.peers[2].rewound_us = NOW - 4000 * MS;
	CHECK(decide() == QDB_ACT_NONE);
	v.peers[1].rewound_us = NOW - 5000 * MS;
	CHECK(decide() == QDB_ACT_OPEN_EPOCH);
	v.peers[2].rewound_us = NOW - 5000 * MS;
	CHECK(decide() == QDB_ACT_OPEN_EPOCH);	/* both stand still */
	/* Alone, it cannot have another epoch. */
	v.self = 1;
	v.peers[1].connected = v.peers[2].connected = false;
	CHECK(decide() == QDB_ACT_NONE);
}

static void
rewind_moves_on_past_its_best_attempt(void)
{
	QdbResyncWatch w = {0};

	qdb_resync_note(&w, 7, 3, "", 0, 10);
	CHECK(w.moved_us == 0);
	qdb_resync_note(&w, 7, 3, "clone", 100, 20);
	CHECK(w.moved_us == 0);
	qdb_resync_note(&w, 7, 3, QDB_REWIND_SCAN, 1000, 30);
	CHECK(w.moved_us == 30);
	qdb_resync_note(&w, 7, 3, QDB_REWIND_SCAN, 1000, 40);
	CHECK(w.moved_us == 30);
	qdb_resync_note(&w, 7, 3, QDB_REWIND_FETCH, 10, 50);
	CHECK(w.moved_us == 50);
	/* It fails, and begins anew. */
	qdb_resync_note(&w, 7, 3, "", 0, 60);
	qdb_resync_note(&w, 7, 3, QDB_REWIND_SCAN, 2000, 70);
	qdb_resync_note(&w, 7, 3, QDB_REWIND_FETCH, 10, 80);
	CHECK(w.moved_us == 50);
	qdb_resync_note(&w, 7, 3, QDB_REWIND_FETCH, 11, 90);
	CHECK(w.moved_us == 90);
	qdb_resync_note(&w, 7, 3, QDB_REWIND_SYNC, 0, 100);
	CHECK(w.moved_us == 100);
	/* Applied; restarts without work in between do not count. */
	qdb_resync_note(&w, 7, 4, "", 0, 200);
	CHECK(w.moved_us == 200);
	qdb_resync_note(&w, 7, 5, "", 0, 300);
	CHECK(w.moved_us == 200);
	qdb_resync_note(&w, 8, 6, "", 0, 400);
	CHECK(w.moved_us == 0);
}

static void
table_while_paused(void)
{
	make_cluster(3);
	make_view(3);
	s.settings.auto_failover = false;
	silence_primary();
	v.peers[0].gone = true;
	CHECK(decide() == QDB_ACT_NONE);
	make_view(3);
	silence_primary();
	v.peers[0].connected = true;
	CHECK(decide() == QDB_ACT_NONE);
	make_view(3);
	v.peers[0].boot = 2;
	CHECK(decide() == QDB_ACT_OPEN_EPOCH);
}

static void
table_while_epoch_open(void)
{
	QdbAction	a;

	make_cluster(3);
	open_epoch();
	make_view(3);
	v.epoch_seen_us = NOW - 200 * MS;
	CHECK(decide() == QDB_ACT_NONE);
	report(2, 1, 0x5000);
	APPLY(QDB_OK);
	report(3, 1, 0x5000);
	APPLY(QDB_OK);
	v.reports_seen_us = NOW - 20 * MS;
	CHECK(decide() == QDB_ACT_NONE);	/* node 1 is connected and owes one */
	v.reports_seen_us = NOW - 120 * MS;
	CHECK(decide() == QDB_ACT_SEAT);
	v.peers[0].connected = false;
	v.reports_seen_us = NOW;
	a = qdb_failover_decide(&s, &v);
	CHECK(a.kind == QDB_ACT_SEAT && a.grant.holder == 2 && strstr(a.reason, "n2 was chosen") != NULL);
	s.move.target = 3;
	CHECK(qdb_failover_decide(&s, &v).grant.holder == 3);
	s.move.target = 0;
	v.peers[1].boot = 2;		/* restarted after its report */
	CHECK(qdb_failover_decide(&s, &v).grant.holder == 3);
	v.peers[2].able = false;
	CHECK(decide() == QDB_ACT_NONE);
	v.epoch_seen_us = NOW - 6000 * MS;
	CHECK(decide() == QDB_ACT_OPEN_EPOCH);
	command(QDB_CMD_SEAT);
	c.grant = a.grant;
	APPLY(QDB_OK);
}

/* Who was asked for is waited for, but not until the epoch is over, nor without a vote. */
static void
wanted_member_gets_a_moment(void)
{
	make_cluster(3);
	open_epoch();
	make_view(3);
	report(2, 1, 0x5000);
	APPLY(QDB_OK);
	report(3, 1, 0x5000);
	APPLY(QDB_OK);
	v.reports_seen_us = NOW - 120 * MS;
	v.epoch_seen_us = NOW - 400 * MS;
	s.move.target = 1;
	CHECK(decide() == QDB_ACT_NONE);
	s.settings.open_ms = 600;
	CHECK(decide() == QDB_ACT_SEAT);
	s.settings.open_ms = 5000;
	CHECK(decide() == QDB_ACT_NONE);
	s.members[0].role = QDB_ROLE_REPLICA;
	CHECK(decide() == QDB_ACT_SEAT);
}

static void
table_of_members(void)
{
	make_cluster(3);
	make_view(3);
	v.self = 1;
	CHECK(decide() == QDB_ACT_TRANSFER && qdb_failover_decide(&s, &v).member == 2);
	v.leader_since_us = NOW - 500 * MS;
	CHECK(decide() == QDB_ACT_NONE);
	make_cluster(1);
	make_view(3);
	v.self = 1;
	add_member(2);
	APPLY(QDB_OK);
	add_member(3);
	APPLY(QDB_OK);
	v.peers[1].caught_up = true;
	CHECK(decide() == QDB_ACT_NONE);	/* two voters are worse than one */
	v.peers[2].caught_up = true;
	CHECK(decide() == QDB_ACT_PROMOTE_LEARNER && qdb_failover_decide(&s, &v).member == 2);
	set_role(2, QDB_ROLE_VOTER);
	APPLY(QDB_OK);
	CHECK(decide() == QDB_ACT_NONE);
	v.peers[0].closed_membership = s.membership;
	CHECK(decide() == QDB_ACT_CLOSE_CHANGE);
	/* The last holder still says so when an epoch is open. */
	s.epoch_open = true;
	s.epoch++;
	CHECK(decide() != QDB_ACT_CLOSE_CHANGE);
	s.epoch_open = false;
	s.epoch--;
	close_change();
	APPLY(QDB_OK);
	CHECK(decide() == QDB_ACT_PROMOTE_LEARNER && qdb_failover_decide(&s, &v).member == 3);
}

static void
ask_move(uint64_t target, bool force)
{
	command(QDB_CMD_MOVE);
	c.epoch = s.epoch;
	c.member.id = target;
	c.flag = force;
	c.time_us = UNIX;
}

static QdbResult
judge(uint64_t target, bool force)
{
	QdbResult	result = qdb_judge_move(&s, &v, target, force, why, hint);

	/* A refusal says why, and what helps. */
	if (result != QDB_OK && result != QDB_UNCHANGED)
		CHECK(why[0] != '\0' && hint[0] != '\0');
	return result;
}

static void
set_up_move(void)
{
	make_cluster(3);
	make_view(3);
	CHECK(judge(3, false) == QDB_OK && judge(3, true) == QDB_OK);
}

static void
promotion_is_refused_for_who_cannot(void)
{
	set_up_move();
	CHECK(judge(9, false) == QDB_NO_MEMBER);
	ask_move(9, false);
	APPLY(QDB_NO_MEMBER);
	CHECK(judge(1, false) == QDB_UNCHANGED);
	ask_move(1, false);
	APPLY(QDB_UNCHANGED);
	s.members[2].role = QDB_ROLE_REPLICA;
	CHECK(judge(3, false) == QDB_NOT_VOTER && judge(3, true) == QDB_NOT_VOTER);
	ask_move(3, true);
	APPLY(QDB_NOT_VOTER);
	s.members[2].role = QDB_ROLE_LEARNER;
	CHECK(judge(3, false) == QDB_NOT_VOTER && strstr(why, "learner") != NULL);
	set_up_move();
	s.members[2].priority = 0;
	CHECK(judge(3, false) == QDB_PRIORITY_ZERO && judge(3, true) == QDB_PRIORITY_ZERO);
	ask_move(3, true);
	APPLY(QDB_PRIORITY_ZERO);
	set_up_move();
	v.peers[2].able = false;
	v.peers[2].why_not = "needs a rewind";
	CHECK(judge(3, false) == QDB_BAD_VALUE && strstr(why, "needs a rewind") != NULL);
	CHECK(judge(3, true) == QDB_BAD_VALUE);
	set_up_move();
	v.peers[2].connected = false;
	CHECK(judge(3, false) == QDB_NO_MAJORITY && strstr(why, "not connected") != NULL);
	v.peers[0].connected = false;
	CHECK(judge(3, false) == QDB_NO_MAJORITY && strstr(why, "nothing was changed") != NULL);
	CHECK(judge(2, true) == QDB_NO_MAJORITY);
}

static void
planned_promotion_respects_what_force_does_not(void)
{
	set_up_move();
	s.settings.auto_failover = false;
	CHECK(judge(3, false) == QDB_PAUSED && judge(3, true) == QDB_OK);
	ask_move(3, false);
	APPLY(QDB_PAUSED);
	set_up_move();
	s.change_open = true;
	memset(s.previous_roles, QDB_ROLE_VOTER, 3);
	CHECK(judge(3, false) == QDB_CHANGE_OPEN && judge(3, true) == QDB_OK);
	ask_move(3, false);
	APPLY(QDB_CHANGE_OPEN);
	set_up_move();
	s.grants[s.ngrants - 1].opened = false;
	CHECK(judge(3, false) == QDB_CHANGE_OPEN && judge(3, true) == QDB_OK);
	set_up_move();
	open_epoch();
	CHECK(judge(3, false) == QDB_CHANGE_OPEN && judge(3, true) == QDB_OK);
	ask_move(3, false);
	APPLY(QDB_CHANGE_OPEN);
	ask_move(3, true);
	c.epoch--;
	APPLY(QDB_STALE);
	ask_move(3, true);
	APPLY(QDB_OK);
	CHECK(s.move.target == 3 && s.move.force);
}

static void
one_promotion_at_a_time(void)
{
	set_up_move();
	ask_move(3, false);
	APPLY(QDB_OK);
	CHECK(judge(2, false) == QDB_MOVE_OPEN && judge(3, false) == QDB_OK);
	ask_move(2, false);
	APPLY(QDB_MOVE_OPEN);
	c.time_us += 31 * 1000 * (int64_t) MS;	/* the first was forgotten */
	APPLY(QDB_OK);
	CHECK(s.move.target == 2);
	ask_move(0, false);
	strcpy(c.text, "it does not stream");
	APPLY(QDB_OK);
	APPLY(QDB_UNCHANGED);
	CHECK(s.move.target == 0);
	CHECK(strcmp(s.journal[(s.journal_next - 2) % QDB_MAX_JOURNAL].event, "switchover_failed") == 0);
}

static void
table_of_moves(void)
{
	set_up_move();
	ask_move(3, false);
	APPLY(QDB_OK);
	v.move_seen_us = NOW - 100 * MS;
	CHECK(decide() == QDB_ACT_NONE);	/* the holder acts */
	v.unix_us += INT64_C(3600000) * MS; /* whatever the clock of who asked says */
	CHECK(decide() == QDB_ACT_NONE);
	v.unix_us -= INT64_C(7200000) * MS;
	CHECK(decide() == QDB_ACT_NONE);
	v.move_seen_us = NOW - 11000 * MS;
	CHECK(decide() == QDB_ACT_GIVE_UP_MOVE);
	v.move_seen_us = NOW - 100 * MS;
	v.peers[0].connected = false;	/* it does not live: at once */
	CHECK(decide() == QDB_ACT_OPEN_EPOCH);
	v.peers[2].connected = false;
	CHECK(decide() == QDB_ACT_NONE);
	set_up_move();
	ask_move(3, true);
	APPLY(QDB_OK);
	v.move_seen_us = NOW - 1000 * MS;
	CHECK(decide() == QDB_ACT_NONE);
	v.move_seen_us = NOW - 3100 * MS;
	CHECK(decide() == QDB_ACT_OPEN_EPOCH);
	s.settings.auto_failover = false;	/* force is asked for by name */
	CHECK(decide() == QDB_ACT_OPEN_EPOCH);
}

static void
seat_waits_for_who_was_asked_for(void)
{
	set_up_move();
	ask_move(3, false);
	APPLY(QDB_OK);
	open_epoch();
	report(1, 1, 0x5000);
	APPLY(QDB_OK);
	report(2, 1, 0x5000);
	APPLY(QDB_OK);
	v.epoch_seen_us = NOW - 100 * MS;
	CHECK(decide() == QDB_ACT_NONE);
	v.epoch_seen_us = NOW - 1100 * MS;
	CHECK(decide() == QDB_ACT_SEAT);
	report(3, 1, 0x5000);
	APPLY(QDB_OK);
	v.epoch_seen_us = NOW - 100 * MS;
	CHECK(qdb_failover_decide(&s, &v).grant.holder == 3);
	seat(3);
	APPLY(QDB_OK);
	CHECK(s.move.target == 0);
}

static void
force_seats_below_the_maximum_and_says_so(void)
{
	QdbAction	a;

	set_up_move();
	open_epoch();
	report(1, 1, 0x6000);
	APPLY(QDB_OK);
	report(3, 1, 0x5000);
	APPLY(QDB_OK);
	seat(3);
	APPLY(QDB_NO_MAJORITY);
	ask_move(3, true);
	APPLY(QDB_OK);
	v.peers[1].connected = true;
	v.epoch_seen_us = NOW - 200 * MS;
	a = qdb_failover_decide(&s, &v);
	CHECK(a.kind == QDB_ACT_SEAT && a.grant.holder == 3);
	CHECK(strstr(a.reason, "4096 bytes of WAL are given up: n1") != NULL);
	seat(3);
	APPLY(QDB_OK);
	qdb_tell_loss(&s, qdb_current_grant(&s), why, sizeof(why));
	CHECK(strstr(why, "4096 bytes") != NULL);
}

/* I6 asks for the maximum of a majority, not of everybody who reported. */
static void
majority_does_without_the_unfit_maximum(void)
{
	set_up_move();
	open_epoch();
	report(1, 1, 0x6000);
	APPLY(QDB_OK);
	report(2, 1, 0x5000);
	APPLY(QDB_OK);
	seat(2);
	APPLY(QDB_NO_MAJORITY);		/* n1 is needed for it */
	report(3, 1, 0x4000);
	APPLY(QDB_OK);
	seat(3);
	APPLY(QDB_NO_MAJORITY);		/* n2 and n1 have more */
	seat(2);
	APPLY(QDB_OK);
	CHECK(strstr(s.journal[(s.journal_next - 2) % QDB_MAX_JOURNAL].reason, "4096 bytes before") != NULL);
	CHECK(strstr(s.journal[(s.journal_next - 3) % QDB_MAX_JOURNAL].reason, "more WAL") != NULL);
	CHECK(strcmp(s.journal[(s.journal_next - 3) % QDB_MAX_JOURNAL].event, "not_chosen") == 0);
}

static void
give_donation(uint64_t donor, uint64_t taker)
{
	command(QDB_CMD_DONATE);
	c.epoch = s.epoch;
	c.grant.holder = donor;
	c.member.id = taker;
}

static void
unfit_maximum_donates(void)
{
	QdbAction	a;

	set_up_move();
	open_epoch();
	v.epoch_seen_us = NOW - 200 * MS;
	v.peers[2].connected = false;	/* n3 is gone: n1 is needed */
	report(1, 1, 0x6000);
	APPLY(QDB_OK);
	report(2, 1, 0x5000);
	APPLY(QDB_OK);
	CHECK(qdb_failover_decide(&s, &v).grant.holder == 1);
	v.peers[0].able = false;
	a = qdb_failover_decide(&s, &v);
	CHECK(a.kind == QDB_ACT_DONATE && a.donor == 1 && a.member == 2);
	give_donation(2, 1);
	APPLY(QDB_BAD_VALUE);		/* n1's log is no prefix of n2's */
	give_donation(1, 3);
	APPLY(QDB_NO_MEMBER);
	give_donation(1, 1);
	APPLY(QDB_BAD_VALUE);		/* no state says so, and none could be a
								 * snapshot then */
	give_donation(1, 2);
	APPLY(QDB_OK);
	APPLY(QDB_UNCHANGED);
	CHECK(decide() == QDB_ACT_NONE);	/* under way */
	report(2, 1, 0x6000);
	APPLY(QDB_OK);
	CHECK(qdb_failover_decide(&s, &v).grant.holder == 2);
	v.peers[0].connected = false;
	CHECK(qdb_failover_decide(&s, &v).grant.holder == 2);
}

static void
diverged_taker_gets_nothing(void)
{
	set_up_move();
	open_epoch();
	report(1, 1, 0x5000);
	APPLY(QDB_OK);
	report(2, 1, 0x5000);
	APPLY(QDB_OK);
	seat(1);
	APPLY(QDB_OK);				/* timeline 2 leaves 1 at 0x5000 */
	open_epoch();
	make_view(3);
	v.epoch_seen_us = NOW - 200 * MS;
	v.peers[2].connected = false;
	v.peers[0].able = false;
	report(1, 2, 0x6000);
	APPLY(QDB_OK);
	report(2, 1, 0x5800);
	APPLY(QDB_OK);
	CHECK(decide() == QDB_ACT_NONE);
	give_donation(1, 2);
	APPLY(QDB_BAD_VALUE);
	report(2, 1, 0x4800);
	APPLY(QDB_OK);
	CHECK(decide() == QDB_ACT_DONATE);
}

/* n1 had the seat, was able and did not open: n2 takes its WAL; alone it tries again. */
static void
who_failed_to_open_stands_back(void)
{
	set_up_move();
	open_epoch();
	report(1, 1, 0x6000);
	APPLY(QDB_OK);
	report(2, 1, 0x5000);
	APPLY(QDB_OK);
	seat(1);
	APPLY(QDB_OK);
	open_epoch();
	v.epoch_seen_us = NOW - 200 * MS;
	v.peers[2].connected = false;
	report(1, 1, 0x6000);
	APPLY(QDB_OK);
	report(2, 1, 0x5000);
	APPLY(QDB_OK);
	CHECK(decide() == QDB_ACT_DONATE);
	v.peers[1].able = false;
	CHECK(qdb_failover_decide(&s, &v).grant.holder == 1);
	v.peers[1].able = true;
	v.epoch_seen_us = NOW - 3000 * MS;	/* the taker did not manage */
	CHECK(qdb_failover_decide(&s, &v).grant.holder == 1);
}

static void
lone_learner_votes_only_when_asked_for(void)
{
	make_cluster(3);
	make_view(4);
	add_member(4);
	APPLY(QDB_OK);
	v.peers[3].caught_up = true;
	CHECK(decide() == QDB_ACT_NONE);
	set_role(4, QDB_ROLE_LEARNER);
	c.flag = true;
	APPLY(QDB_OK);
	APPLY(QDB_UNCHANGED);
	CHECK(s.members[3].alone);
	CHECK(decide() == QDB_ACT_PROMOTE_LEARNER && qdb_failover_decide(&s, &v).member == 4);
	set_role(4, QDB_ROLE_VOTER);
	APPLY(QDB_OK);
	CHECK(!s.members[3].alone && s.change_open);
}

static void
moves_survive_a_snapshot(void)
{
	static uint8_t buf[QDB_STATE_MAX_BYTES];
	static QdbState copy;
	size_t		len = sizeof(buf);

	set_up_move();
	ask_move(3, true);
	APPLY(QDB_OK);
	open_epoch();
	s.donation = (QdbDonation) {s.epoch, 1, 2};
	s.suspected_us = 77;
	CHECK(qdb_state_encode(&s, buf, &len) && qdb_state_decode(buf, len, &copy));
	CHECK(copy.move.target == 3 && copy.move.force && copy.move.time_us == UNIX);
	CHECK(copy.donation.donor == 1 && copy.donation.taker == 2 && copy.suspected_us == 77);
	s.donation.taker = 1;
	len = sizeof(buf);
	CHECK(!qdb_state_encode(&s, buf, &len));
}

static QdbResult
set(const char *name, const char *value)
{
	command(QDB_CMD_SETTING);
	strcpy(c.node, name);
	strcpy(c.value, value);
	return qdb_state_apply(&s, &c);
}

/* Switching is a numbered change; async holds until the way back is closed (I13). */
static void
durability_switches_under_a_number(void)
{
	uint64_t	number;

	make_cluster(3);
	number = s.membership;
	CHECK(!qdb_is_async(&s) && set("durability", "maybe") == QDB_BAD_VALUE);
	CHECK(set("durability", "async") == QDB_OK && s.membership == number + 1 && s.change_open);
	CHECK(qdb_is_async(&s));
	CHECK(set("durability", "quorum") == QDB_CHANGE_OPEN);
	CHECK(set("durability", "async") == QDB_UNCHANGED);
	command(QDB_CMD_MEMBERSHIP_CLOSE);
	c.membership = s.membership;
	APPLY(QDB_OK);
	CHECK(qdb_is_async(&s));
	CHECK(set("durability", "quorum") == QDB_OK && s.change_open && !s.settings.async);
	CHECK(qdb_is_async(&s));	/* what was acknowledged may be on no quorum */
	command(QDB_CMD_MEMBERSHIP_CLOSE);
	c.membership = s.membership;
	APPLY(QDB_OK);
	CHECK(!qdb_is_async(&s));
	open_epoch();
	CHECK(set("durability", "async") == QDB_CHANGE_OPEN);
	CHECK(set("max_lag_on_failover", "16MB") == QDB_OK && s.settings.max_lag_bytes == 16 << 20);
	CHECK(set("max_lag_on_failover", "16 apples") == QDB_BAD_VALUE);
	CHECK(set("max_lag_on_failover", "99999999999GB") == QDB_BAD_VALUE);
}

/* Under async nobody follows who would lose more than was agreed. */
static void
async_fails_over_within_its_lag(void)
{
	QdbAction	a;

	make_cluster(3);
	make_view(3);
	silence_primary();
	v.peers[0].gone = true;
	v.peers[0].wal_end = 0x500000;
	v.peers[1].wal_end = v.peers[2].wal_end = 0x200000;
	CHECK(decide() == QDB_ACT_OPEN_EPOCH);	/* quorum: the report decides */
	s.settings.async = true;
	a = qdb_failover_decide(&s, &v);
	CHECK(a.kind == QDB_ACT_NONE && a.held_back == 0x300000);
	v.peers[2].wal_end = 0x4FF000;
	CHECK(decide() == QDB_ACT_OPEN_EPOCH);
	v.peers[2].connected = false;
	CHECK(decide() == QDB_ACT_NONE);
	s.settings.max_lag_bytes = 0x300000;
	CHECK(decide() == QDB_ACT_OPEN_EPOCH);
	v.peers[0].wal_end = 0;
	CHECK(decide() == QDB_ACT_NONE && qdb_failover_decide(&s, &v).held_back == UINT64_MAX);
	s.move.target = 2;
	CHECK(decide() == QDB_ACT_OPEN_EPOCH);	/* asked for */
	s.move.target = 0;
	s.seat_released = true;
	CHECK(decide() == QDB_ACT_OPEN_EPOCH);	/* handed over */
}

static void
async_seat_tells_the_loss(void)
{
	QdbAction	a;

	make_cluster(3);
	open_epoch();
	make_view(3);
	v.peers[0].connected = false;
	v.peers[0].wal_end = 0x5100;
	s.settings.async = true;
	report(2, 1, 0x5000);
	APPLY(QDB_OK);
	report(3, 1, 0x5000);
	APPLY(QDB_OK);
	a = qdb_failover_decide(&s, &v);
	CHECK(a.kind == QDB_ACT_SEAT && strstr(a.reason, "256 bytes that n1 had may be lost") != NULL);
	s.settings.max_lag_bytes = 255;
	CHECK(decide() != QDB_ACT_SEAT && qdb_failover_decide(&s, &v).held_back == 256);
}

static const Test tests[] = {
	TEST(durability_switches_under_a_number),
	TEST(async_fails_over_within_its_lag),
	TEST(async_seat_tells_the_loss),
	TEST(table_while_seated),
	TEST(a_clock_that_was_ahead_delays_no_failover),
	TEST(each_unopened_seat_gets_longer),
	TEST(seat_waits_for_rewinds_that_it_takes),
	TEST(rewind_moves_on_past_its_best_attempt),
	TEST(table_while_paused),
	TEST(table_while_epoch_open),
	TEST(wanted_member_gets_a_moment),
	TEST(table_of_members),
	TEST(promotion_is_refused_for_who_cannot),
	TEST(planned_promotion_respects_what_force_does_not),
	TEST(one_promotion_at_a_time),
	TEST(table_of_moves),
	TEST(seat_waits_for_who_was_asked_for),
	TEST(force_seats_below_the_maximum_and_says_so),
	TEST(majority_does_without_the_unfit_maximum),
	TEST(unfit_maximum_donates),
	TEST(diverged_taker_gets_nothing),
	TEST(who_failed_to_open_stands_back),
	TEST(lone_learner_votes_only_when_asked_for),
	TEST(moves_survive_a_snapshot),
};

int
main(void)
{
	return run_tests(tests, (int) (sizeof(tests) / sizeof(tests[0])));
}
