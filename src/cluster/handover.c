/*-------------------------------------------------------------------------
 *
 * handover.c
 *		The holder gives its seat up: for a MOVE, because it is sick, or because it
 *		shuts down.
 *
 *	near		the target streams and is nearly there, its replay too; writes go on
 *	freeze		fenced: no write is acknowledged any more; WAL ends for good
 *	catch up	a quorum and the target have all of it
 *	release		RELEASE is proposed until its outcome is known
 *	linger		others choose; this node, frozen, keeps the sessions that wait
 *
 * A sick holder (health.c) has no target: whoever has the most takes over.  Where WAL
 * does not reach its disk it cannot freeze either, and goes from the fence to the
 * release at once; what it has not acknowledged is then thrown away.
 *
 * The leader opens the next epoch and the reports decide as always, so a target
 * that does not have the most WAL cannot win (I6), except by force.
 *
 * Shutdown: background workers end before PostgreSQL writes its shutdown
 * checkpoint, which would be WAL that nobody else has (hazards 32).  So the holder
 * freezes, releases its seat, and ends the server without that checkpoint.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>
#include <stdio.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "storage/ipc.h"

#include "cluster/internal.h"

#define NEAR_BYTES			(4 * 1024 * 1024)
#define REPLAY_BYTES		(64 * 1024 * 1024)	/* replayed in no time, while
												 * nobody can write */
#define NEAR_US				(5 * 1000 * 1000)
#define FREEZE_US			(2 * 1000 * 1000)
#define GRACE_US			(50 * 1000) /* for transactions to end by
										 * themselves */
#define CATCH_UP_US			(2 * 1000 * 1000)
#define RELEASE_US			(200 * 1000)
#define ALONE_US			(300 * 1000)
#define LINGER_US			(1000 * 1000)
#define ANSWER_US			(250 * 1000)
#define SICK_AGAIN_US		(10 * 1000 * 1000)	/* after the seat was kept */

typedef enum Step
{
	STEP_NONE,
	STEP_NEAR,
	STEP_FREEZE,
	STEP_CATCH_UP,
	STEP_RELEASE
} Step;

static Step step = STEP_NONE;
static int64 step_us;			/* when it began */
static int64 move_time_us = 0;	/* of the MOVE that is worked on, or was given
								 * up */
static uint64 epoch;			/* the seat that is given up */
static XLogRecPtr goal;
static int64 next_release_us;
static int64 released_us;
static int64 opened_us;
static char sickness[QDB_REASON_SIZE];	/* why, without a MOVE; "": with one */
static int64 next_sick_us = 0;

static void
go_to(Step next)
{
	step = next;
	step_us = qdb_co.now_us;
}

/* Flush position of a streaming member, 0: it does not stream; *apply (may be NULL): of its replay. */
static XLogRecPtr
stream_flush(uint64 member, XLogRecPtr *apply)
{
	XLogRecPtr	flush = 0;

	SpinLockAcquire(&qdb_shared->mutex);
	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
	{
		if (qdb_shared->streams[i].member != member || !qdb_shared->streams[i].streaming)
			continue;
		flush = qdb_shared->streams[i].flush;
		if (apply != NULL)
			*apply = qdb_shared->streams[i].apply;
	}
	SpinLockRelease(&qdb_shared->mutex);
	return flush;
}

static bool
quorum_has(XLogRecPtr lsn)
{
	return pg_atomic_read_u64(&qdb_shared->quorum_epoch) == qdb_shared->seat_epoch &&
		pg_atomic_read_u64(&qdb_shared->quorum_lsn) >= lsn;
}

/* The seat is kept after all: writes go on. */
static void
keep_seat(void)
{
	qdb_thaw_wal();
	qdb_co.handing_over = false;
	sickness[0] = '\0';
	next_sick_us = qdb_co.now_us + SICK_AGAIN_US;
	go_to(STEP_NONE);
}

/* Tells the cluster why the MOVE came to nothing. */
static void
give_up(const char *why)
{
	QdbCommand	command;

	ereport(LOG, (errmsg("[failover] the switchover was given up: %s", why)));
	if (sickness[0] != '\0')
	{
		keep_seat();
		return;
	}
	keep_seat();
	memset(&command, 0, sizeof(command));
	command.type = QDB_CMD_MOVE;
	command.epoch = qdb_co.state->epoch;
	strlcpy(command.text, why, sizeof(command.text));
	(void) qdb_propose(&command, NULL, 0, 0);
}

/*
 * Once it is proposed it is repeated and never taken back: it may have been committed, and it is
 * refused only where its epoch is over.
 */
static void
propose_release(const QdbGrant *grant, const char *reason)
{
	QdbCommand	command;

	if (qdb_now_us() < next_release_us)
		return;
	next_release_us = qdb_now_us() + RELEASE_US;
	SpinLockAcquire(&qdb_shared->mutex);
	qdb_shared->releasing_epoch = grant->epoch;
	SpinLockRelease(&qdb_shared->mutex);
	memset(&command, 0, sizeof(command));
	command.type = QDB_CMD_RELEASE;
	command.epoch = grant->epoch;
	command.grant = *grant;
	command.since_us = qdb_co.fenced_unix_us;
	strlcpy(command.text, reason, sizeof(command.text));
	(void) qdb_propose(&command, NULL, 0, 0);
}

static bool
is_late(int64 limit_us)
{
	return qdb_co.now_us - step_us > limit_us;
}

static void
begin_freeze(void)
{
	qdb_fence_seat();
	next_release_us = 0;
	released_us = opened_us = 0;
	go_to(STEP_FREEZE);
}

static void
wait_until_near(const QdbMove *move)
{
	XLogRecPtr	applied = 0;
	XLogRecPtr	flush = stream_flush(move->target, &applied);
	XLogRecPtr	end = GetFlushRecPtr(NULL);
	char		why[QDB_REASON_SIZE];

	if (flush != 0 && flush + NEAR_BYTES >= end && applied + REPLAY_BYTES >= end)
		begin_freeze();
	else if (!is_late(move->force ? NEAR_US / 5 : NEAR_US))
		return;
	else if (move->force)
		begin_freeze();
	else if (flush == 0)
		give_up("it does not stream from the primary");
	else
	{
		if (flush + NEAR_BYTES >= end)
			snprintf(why, sizeof(why), "its replay is %llu bytes behind and does not catch up",
					 (unsigned long long) (end - applied));
		else
			snprintf(why, sizeof(why), "it is %llu bytes behind and does not catch up",
					 (unsigned long long) (end - flush));
		give_up(why);
	}
}

static void
freeze(bool force)
{
	if (qdb_freeze_wal(&goal))
		go_to(STEP_CATCH_UP);
	else if (is_late(FREEZE_US))
	{
		if (!force)
		{
			give_up("writes on the primary did not end in time");
			return;
		}
		goal = GetFlushRecPtr(NULL);
		go_to(STEP_CATCH_UP);
	}
	else if (is_late(GRACE_US))
		qdb_end_writers();
}

/* Does who shall have the last WAL have it?  Force does not wait for that long. */
static void
catch_up(const QdbMove *move)
{
	bool		sick = sickness[0] != '\0';

	qdb_wake_streamer();
	if (quorum_has(goal) && (sick || stream_flush(move->target, NULL) >= goal))
		go_to(STEP_RELEASE);
	else if (is_late(CATCH_UP_US) && (sick ? !qdb_is_async(qdb_co.state) : move->force))
		go_to(STEP_RELEASE);
	else if (is_late(CATCH_UP_US))
		give_up("a quorum, or it, did not get the last WAL in time");
}

/*
 * qdb_give_seat_up
 *		This node is sick and another can take the seat.
 *
 * stuck: WAL does not reach the disk.  Strict reads end with the fence here, not
 * with the next turn: the RELEASE lets the others go on without a wait (I9).
 */
void
qdb_give_seat_up(const char *why, bool stuck)
{
	const QdbGrant *grant = qdb_current_grant(qdb_co.state);

	if (step != STEP_NONE || grant == NULL || !qdb_grant_is_ours(grant) ||
		qdb_shared->open_epoch != grant->epoch || qdb_co.now_us < next_sick_us)
		return;
	ereport(LOG, (errmsg("[failover] Giving the seat up: %s", why)));
	strlcpy(sickness, why, sizeof(sickness));
	epoch = grant->epoch;
	begin_freeze();
	pg_atomic_write_u64(&qdb_shared->lease_until, 0);
	if (stuck)
		go_to(STEP_RELEASE);
}

static void
take_step(const QdbGrant *grant, const QdbMove *move)
{
	switch (step)
	{
		case STEP_NONE:
			if (move->target == 0 || move->target == qdb_co.self.member ||
				move->epoch != grant->epoch || move->time_us == move_time_us ||
				!grant->opened || qdb_shared->open_epoch != grant->epoch)
				return;
			move_time_us = move->time_us;
			epoch = grant->epoch;
			ereport(LOG, (errmsg("[failover] handing the seat over to %s", qdb_member_label(move->target))));
			go_to(STEP_NEAR);
			break;
		case STEP_NEAR:
			wait_until_near(move);
			break;
		case STEP_FREEZE:
			freeze(move->force || sickness[0] != '\0');
			break;
		case STEP_CATCH_UP:
			catch_up(move);
			break;
		case STEP_RELEASE:
			propose_release(grant, sickness[0] != '\0' ? sickness : "switchover");
			break;
	}
}

void
qdb_handover_turn(void)
{
	const QdbGrant *grant = qdb_current_grant(qdb_co.state);
	const QdbMove *move = &qdb_co.state->move;

	if (grant == NULL || !qdb_grant_is_ours(grant) || qdb_co.state->seat_released)
		return;
	if (step != STEP_RELEASE && qdb_shared->releasing_epoch == grant->epoch)
	{
		/* An earlier process of this boot sent it: nothing takes it back. */
		qdb_fence_seat();
		epoch = grant->epoch;
		go_to(STEP_RELEASE);
	}
	if (step != STEP_NONE && step != STEP_RELEASE && sickness[0] == '\0' &&
		(move->target == 0 || move->time_us != move_time_us))
		keep_seat();
	take_step(grant, move);
}

/* Can the others choose without this node? */
static bool
others_decide(void)
{
	uint64		ids[QDB_MAX_MEMBERS];
	size_t		n = 0;

	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
	{
		const QdbPeer *peer = qdb_mesh_slot(i);

		if (peer->member != 0 && qdb_peer_connected(peer))
			ids[n++] = peer->member;
	}
	return qdb_is_majority(qdb_co.state, ids, n);
}

/*
 * A frozen holder whose seat is released need not hurry to become a standby where the
 * others are a majority without it: until the next primary is open, it keeps the
 * session that asked for the switchover, and a moment longer for its answer.
 */
bool
qdb_handover_lingers(void)
{
	const QdbGrant *grant = qdb_current_grant(qdb_co.state);

	if (step != STEP_RELEASE || qdb_co.released_epoch != epoch || !others_decide())
		return false;
	if (released_us == 0)
		released_us = qdb_co.now_us;
	if (opened_us == 0 && grant != NULL && grant->opened && grant->epoch > epoch)
		opened_us = qdb_co.now_us;
	if (opened_us != 0)
		return qdb_co.now_us - opened_us < ANSWER_US;
	return qdb_co.now_us - released_us < LINGER_US;
}

/* ---- shutdown ---- */

static void
short_turn(void)
{
	qdb_co.now_us = qdb_now_us();
	qdb_mesh_turn();
	(void) qdb_raft_turn(qdb_co.raft);
	qdb_proposals_turn();
	qdb_publish_state();
	qdb_heartbeat_turn();
	qdb_leader_turn();
	pg_usleep(1000);
}

/* All backends end by themselves; what they insert until then is flushed. */
static bool
freeze_for_shutdown(void)
{
	begin_freeze();
	while (!is_late(FREEZE_US))
	{
		if (qdb_freeze_wal(&goal))
			return true;
		if (is_late(GRACE_US))
			qdb_end_writers();
		short_turn();
	}
	goal = GetFlushRecPtr(NULL);
	return false;
}

/* Without a majority nobody takes over: there is nothing to wait for. */
static bool
is_alone(void)
{
	static int64 since_us = 0;
	uint64		ids[QDB_MAX_MEMBERS];
	size_t		n = 0;

	ids[n++] = qdb_co.self.member;
	for (int i = 0; i < QDB_MAX_MEMBERS && n < QDB_MAX_MEMBERS; i++)
	{
		const QdbPeer *peer = qdb_mesh_slot(i);

		if (peer->member != 0 && qdb_peer_connected(peer))
			ids[n++] = peer->member;
	}
	if (qdb_is_majority(qdb_co.state, ids, n))
		since_us = 0;
	else if (since_us == 0)
		since_us = qdb_now_us();
	return since_us != 0 && qdb_now_us() - since_us > ALONE_US;
}

static void
release_seat(void)
{
	const QdbGrant *grant;

	epoch = qdb_shared->seat_epoch;
	if (!freeze_for_shutdown())
		ereport(LOG, (errmsg("[failover] writes did not end in time: this node may come back with WAL that nobody has")));
	go_to(STEP_CATCH_UP);
	while (!quorum_has(goal) && !is_late(CATCH_UP_US) && !is_alone())
	{
		qdb_wake_streamer();
		short_turn();
	}
	go_to(STEP_RELEASE);
	while (qdb_co.released_epoch != epoch && !is_late(5 * RELEASE_US) && !is_alone())
	{
		grant = qdb_current_grant(qdb_co.state);
		if (grant == NULL || !qdb_grant_is_ours(grant))
			break;
		propose_release(grant, "shutdown");
		short_turn();
	}
}

/* A Raft leader that goes moves its leadership first. */
static void
leave_leadership(void)
{
	int64		end_us = qdb_now_us() + 300 * 1000;
	bool		asked = false;

	for (uint32 i = 0; i < qdb_co.state->nmembers && qdb_is_raft_leader() && !asked; i++)
	{
		const QdbMember *member = &qdb_co.state->members[i];

		if (member->role == QDB_ROLE_VOTER && qdb_peer_connected(qdb_mesh_peer(member->id)))
			asked = qdb_raft_transfer(qdb_co.raft, member->id);
	}
	while (asked && qdb_is_raft_leader() && qdb_now_us() < end_us)
		short_turn();
}

/*
 * Ends the server without a shutdown checkpoint.  The lock on WAL is held until the
 * signal comes back to us: were it free for a moment, that checkpoint could begin.
 */
static void
end_server(void)
{
	ereport(LOG, (errmsg("[failover] the seat is given up: ending the server without a shutdown checkpoint")));
	qdb_shared->handed_over = true;
	kill(PostmasterPid, SIGQUIT);
	for (int i = 0; i < 1000; i++)
		pg_usleep(10 * 1000);
	_exit(2);
}

static bool
is_only_voter(void)
{
	const uint64 self = qdb_co.self.member;

	return qdb_is_majority(qdb_co.state, &self, 1);
}

void
qdb_shut_down(void)
{
	const QdbGrant *grant;
	bool		held;

	if (qdb_co.raft == NULL || !qdb_shared->member)
		qdb_worker_end();
	if (!qdb_server_is_stopping())
	{
		/* Only this worker was ended: the postmaster starts it again. */
		qdb_close_raft();
		proc_exit(1);
	}
	grant = qdb_current_grant(qdb_co.state);
	held = grant != NULL && qdb_grant_is_ours(grant) && qdb_shared->seat_epoch == grant->epoch;
	/* Who is its own majority may write what it likes. */
	held = held && !is_only_voter();
	if (held)
		release_seat();
	leave_leadership();
	qdb_mesh_goodbye(QDB_GOODBYE_SHUTDOWN);
	qdb_close_raft();
	if (held)
		end_server();
	proc_exit(0);
}
