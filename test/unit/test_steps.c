/*-------------------------------------------------------------------------
 *
 * test_steps.c
 *		Unit tests of what one node may do: its next step, acks, leases.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <string.h>

#include "core/steps.h"

#define CHECK(x)	do { if (!(x)) { printf("# line %d: %s\n", __LINE__, #x); failed = true; } } while (0)

static bool failed;
static QdbState s;
static QdbNodeView v;

/* Three voters, epoch 3 held by member 1 in boot 7, on timeline 4 out of 1. */
static void
set_up(void)
{
	qdb_state_init(&s);
	strcpy(s.cluster_id, "11111111-2222-3333-4444-555555555555");
	s.nmembers = 3;
	s.next_member_id = 4;
	for (uint32_t i = 0; i < 3; i++)
	{
		s.members[i].id = i + 1;
		s.members[i].incarnation = 100 + i;
		s.members[i].role = QDB_ROLE_VOTER;
	}
	s.membership = 3;
	s.epoch = 3;
	s.ngrants = 2;
	s.grants[0] = (QdbGrant) {.epoch = 1,.timeline = 1,.fork = 0x1000,.holder = 2,
		.incarnation = 101,.boot = 1,.opened = true,.lease_ms = 400};
	s.grants[1] = (QdbGrant) {.epoch = 3,.timeline = 4,.parent_timeline = 1,.fork = 0x5000,
		.holder = 1,.incarnation = 100,.boot = 7,.lease_ms = 400};
	memset(&v, 0, sizeof(v));
	v.self = (QdbBoot) {1, 100, 7};
	v.promised = 3;
	v.in_recovery = true;
}

static QdbNodeStep
step(void)
{
	return qdb_node_step(&s, &v);
}

static void
holder_goes_from_grant_to_gate(void)
{
	set_up();
	CHECK(step() == QDB_STEP_PROMOTE);
	v.in_recovery = false;
	CHECK(step() == QDB_STEP_TAKE_SEAT);
	v.seat_epoch = 3;
	v.record_end = 0x5100;
	CHECK(step() == QDB_STEP_NONE);
	v.quorum_epoch = 3;
	v.quorum_lsn = 0x50ff;
	CHECK(step() == QDB_STEP_NONE);
	v.quorum_lsn = 0x5100;
	CHECK(step() == QDB_STEP_PROPOSE_GATE);
	v.quorum_epoch = 1;
	CHECK(step() == QDB_STEP_NONE);
	s.grants[1].opened = true;
	CHECK(step() == QDB_STEP_OPEN_GATE);
	v.open_epoch = 3;
	CHECK(step() == QDB_STEP_NONE);
	v.open_epoch = 0;
	s.seat_released = true;
	CHECK(step() == QDB_STEP_NONE);
}

static void
superseded_promotion_is_ended(void)
{
	set_up();
	v.promoting = true;
	CHECK(step() == QDB_STEP_PROMOTE);
	s.epoch = 4;
	s.epoch_open = true;
	CHECK(step() == QDB_STEP_STOP);
	v.promoting = false;
	CHECK(step() == QDB_STEP_ANSWER);
	s.epoch_open = false;
	s.grants[s.ngrants++] = (QdbGrant) {.epoch = 4,.timeline = 5,.parent_timeline = 1,.fork = 0x5000,
		.holder = 2,.incarnation = 101,.boot = 3,.lease_ms = 400};
	CHECK(step() == QDB_STEP_FOLLOW);
	v.promoting = true;
	CHECK(step() == QDB_STEP_STOP);
}

static void
own_unfinished_start_counts(void)
{
	QdbBoot		self = {1, 100, 8};

	set_up();
	CHECK(qdb_start_counts(&s.grants[1], &self));
	self.boot = 6;
	CHECK(!qdb_start_counts(&s.grants[1], &self));
	self = (QdbBoot) {1, 101, 8};
	CHECK(!qdb_start_counts(&s.grants[1], &self));
	self = (QdbBoot) {2, 100, 8};
	CHECK(!qdb_start_counts(&s.grants[1], &self));
}

static void
writable_without_the_seat_stops(void)
{
	set_up();
	v.in_recovery = false;
	v.self.boot = 8;			/* another boot of the holder */
	CHECK(step() == QDB_STEP_STOP);
	v.self = (QdbBoot) {2, 101, 1};
	CHECK(step() == QDB_STEP_STOP);
	v.in_recovery = true;
	CHECK(step() == QDB_STEP_FOLLOW);
	s.epoch = 4;
	s.epoch_open = true;
	CHECK(step() == QDB_STEP_ANSWER);
	v.in_recovery = false;
	CHECK(step() == QDB_STEP_STOP);
}

static void
later_boot_of_the_holder_waits(void)
{
	set_up();
	v.self.boot = 8;
	CHECK(step() == QDB_STEP_NONE);
}

static void
the_past_is_left_alone(void)
{
	set_up();
	v.promised = 4;
	CHECK(step() == QDB_STEP_NONE);
	v.promised = 3;
	v.in_recovery = false;
	v.seat_epoch = 4;
	CHECK(step() == QDB_STEP_NONE);
	/* its own seat's epoch, before the SEAT is applied again after a restart */
	v.seat_epoch = 3;
	s.ngrants = 1;
	s.epoch_open = true;
	CHECK(step() == QDB_STEP_NONE);
}

static void
removed_member_leaves(void)
{
	set_up();
	v.self.member = 4;			/* not added yet */
	CHECK(step() == QDB_STEP_NONE);
	v.self.member = 3;
	s.nmembers = 2;
	CHECK(step() == QDB_STEP_LEAVE);
}

static void
history_ends_at_the_fork(void)
{
	uint64_t	limit;

	set_up();
	CHECK(qdb_history_limit(&s, &s.grants[1], 4, &limit) && limit == UINT64_MAX);
	CHECK(qdb_history_limit(&s, &s.grants[1], 1, &limit) && limit == 0x5000);
	CHECK(!qdb_history_limit(&s, &s.grants[1], 3, &limit));
	CHECK(!qdb_history_limit(&s, &s.grants[0], 4, &limit));
}

static void
wal_only_under_the_promise(void)
{
	CHECK(qdb_may_take_wal(3, 3, 3, 3));
	CHECK(!qdb_may_take_wal(3, 3, 3, 4));
	CHECK(!qdb_may_take_wal(3, 3, 4, 4));
	CHECK(!qdb_may_take_wal(3, 0, 3, 3));
	CHECK(!qdb_may_take_wal(2, 2, 3, 3));
}

static void
acks_of_another_life_count_nothing(void)
{
	QdbAckName	stream = {3, 100, 7, 55};
	QdbAckName	ack = stream;

	CHECK(qdb_ack_counts(&ack, 3, &stream, 3));
	CHECK(qdb_ack_counts(&ack, 2, &stream, 3));
	CHECK(!qdb_ack_counts(&ack, 4, &stream, 3));
	ack.epoch = 2;
	CHECK(!qdb_ack_counts(&ack, 3, &stream, 3));
	ack = stream;
	ack.boot = 6;
	CHECK(!qdb_ack_counts(&ack, 3, &stream, 3));
	ack = stream;
	ack.incarnation = 99;
	CHECK(!qdb_ack_counts(&ack, 3, &stream, 3));
	ack = stream;
	ack.connection = 54;
	CHECK(!qdb_ack_counts(&ack, 3, &stream, 3));
}

static void
quorum_never_goes_back(void)
{
	QdbQuorum	q = {0};

	qdb_quorum_advance(&q, 3, 0, 5);
	CHECK(q.epoch == 3 && q.lsn == 0 && q.membership == 0);
	qdb_quorum_advance(&q, 3, 0x100, 5);
	CHECK(q.lsn == 0x100 && q.membership == 5);
	/* a new membership that is behind is not switched to */
	qdb_quorum_advance(&q, 3, 0xff, 6);
	CHECK(q.lsn == 0x100 && q.membership == 5);
	qdb_quorum_advance(&q, 3, 0x100, 6);
	CHECK(q.lsn == 0x100 && q.membership == 6);
	qdb_quorum_advance(&q, 4, 0x80, 6);
	CHECK(q.epoch == 4 && q.lsn == 0x80);
}

static void
holder_counts_by_its_own_epoch_alone(void)
{
	set_up();
	CHECK(qdb_counts_by(&s, 3));
	/* deposed, though it has not stopped: the next holder's members acked to that one */
	s.epoch = 4;
	s.epoch_open = true;
	CHECK(!qdb_counts_by(&s, 3));
	s.epoch_open = false;
	s.nmembers = 5;
	s.membership = 5;
	CHECK(!qdb_counts_by(&s, 3));
	CHECK(qdb_counts_by(&s, 4));
}

static void
lease_is_granted_under_the_promise(void)
{
	QdbBoot		asker = {1, 100, 7};

	set_up();
	CHECK(qdb_lease_may_grant(&s, 2, &asker, 3, 3, 3));
	CHECK(!qdb_lease_may_grant(&s, 2, &asker, 2, 3, 3));
	CHECK(!qdb_lease_may_grant(&s, 2, &asker, 3, 3, 4));
	CHECK(!qdb_lease_may_grant(&s, 2, &asker, 3, 2, 2));
	asker.boot = 6;
	CHECK(!qdb_lease_may_grant(&s, 2, &asker, 3, 3, 3));
	asker.boot = 7;
	s.members[1].role = QDB_ROLE_REPLICA;
	CHECK(!qdb_lease_may_grant(&s, 2, &asker, 3, 3, 3));
	s.members[1].role = QDB_ROLE_LEARNER;
	CHECK(qdb_lease_may_grant(&s, 2, &asker, 3, 3, 3));
	s.seat_released = true;
	CHECK(!qdb_lease_may_grant(&s, 2, &asker, 3, 3, 3));
}

static void
holder_counts_less_than_was_given(void)
{
	QdbGrant	grant = {.lease_ms = 400};
	int64_t		us = qdb_lease_counted_us(&grant);

	/* a holder's clock that is 1 % slow still ends first */
	CHECK(us < 400000 && us * 101 / 100 < 400000 && us > 390000);
}

static void
lease_blocks_the_report(void)
{
	QdbLeaseBook book = {.started_us = 1000000};
	QdbBoot		none = {0};
	QdbBoot		bye = {1, 100, 7};
	int64_t		now = 10000000;

	set_up();
	/* forgotten grants: the longest lease since the start */
	CHECK(qdb_lease_blocks(&s, 2, &book, 0, &none, 1000000 + 400000));
	CHECK(!qdb_lease_blocks(&s, 2, &book, 0, &none, 1000000 + 400001));
	s.grants[0].lease_ms = 9000;
	CHECK(qdb_lease_blocks(&s, 2, &book, 0, &none, 1000000 + 8000000));
	s.grants[0].lease_ms = 400;

	qdb_lease_note(&book, &s.grants[1], now);
	CHECK(qdb_lease_blocks(&s, 2, &book, 0, &none, now + 400000));
	CHECK(!qdb_lease_blocks(&s, 2, &book, 0, &none, now + 400001));
	/* a shorter one does not shorten it */
	s.grants[1].lease_ms = 50;
	qdb_lease_note(&book, &s.grants[1], now + 1);
	CHECK(qdb_lease_blocks(&s, 2, &book, 0, &none, now + 400000));

	/* the holder itself, a release and a goodbye need no wait */
	CHECK(!qdb_lease_blocks(&s, 1, &book, 0, &none, now));
	CHECK(!qdb_lease_blocks(&s, 2, &book, 3, &none, now));
	CHECK(qdb_lease_blocks(&s, 2, &book, 1, &none, now));
	CHECK(!qdb_lease_blocks(&s, 2, &book, 0, &bye, now));
	bye.boot = 6;
	CHECK(qdb_lease_blocks(&s, 2, &book, 0, &bye, now));
	/* a goodbye of the last holder says nothing of the one before */
	bye.boot = 7;
	book.member = 2;
	book.boot = 1;
	CHECK(qdb_lease_blocks(&s, 2, &book, 0, &bye, now));
}

static const struct
{
	const char *name;
	void		(*run) (void);
}			tests[] = {
	{"step_holder_goes_from_grant_to_gate", holder_goes_from_grant_to_gate},
	{"step_superseded_promotion_is_ended", superseded_promotion_is_ended},
	{"own_unfinished_start_counts", own_unfinished_start_counts},
	{"step_writable_without_the_seat_stops", writable_without_the_seat_stops},
	{"step_later_boot_of_the_holder_waits", later_boot_of_the_holder_waits},
	{"step_the_past_is_left_alone", the_past_is_left_alone},
	{"step_removed_member_leaves", removed_member_leaves},
	{"history_ends_at_the_fork", history_ends_at_the_fork},
	{"wal_only_under_the_promise", wal_only_under_the_promise},
	{"ack_of_another_life_counts_nothing", acks_of_another_life_count_nothing},
	{"quorum_never_goes_back", quorum_never_goes_back},
	{"holder_counts_by_its_own_epoch_alone", holder_counts_by_its_own_epoch_alone},
	{"lease_is_granted_under_the_promise", lease_is_granted_under_the_promise},
	{"lease_holder_counts_less_than_was_given", holder_counts_less_than_was_given},
	{"lease_blocks_the_report", lease_blocks_the_report},
};

int
main(void)
{
	int			ntests = (int) (sizeof(tests) / sizeof(tests[0]));
	int			nfailed = 0;

	printf("1..%d\n", ntests);
	for (int i = 0; i < ntests; i++)
	{
		failed = false;
		tests[i].run();
		printf("%sok %d - %s\n", failed ? "not " : "", i + 1, tests[i].name);
		nfailed += failed;
	}
	return nfailed != 0;
}
