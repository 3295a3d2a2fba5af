/*-------------------------------------------------------------------------
 *
 * role.c
 *		This node's own steps, by what the replicated state says.
 *
 * Which step it is decides qdb_node_step (core/steps.c); here it is carried out:
 *
 *	stop		fence, demote
 *	answer		a voter: park, wait for leases, promise, scan, report; others: park, promise
 *	follow		promise, match histories, stream
 *	the rest	seat.c
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "replication/walreceiver.h"

#include "cluster/internal.h"

#define REPORT_US			(200 * 1000)
#define SCAN_US				(100 * 1000)
#define DEMOTE_US			(1000 * 1000)
#define CLEAR_US			(200 * 1000)
#define LIMITS_US			(500 * 1000)
#define MATCH_US			(1000 * 1000)

static char problem[QDB_REASON_SIZE];
static bool have_end = false;
static uint64 end_epoch = 0;	/* promise under which own_end was scanned */
static QdbEndOfWal own_end;
static int64 next_scan_us = 0;
static int64 next_report_us = 0;
static int64 next_demote_us = 0;
static int64 next_clear_us = 0;
static int64 next_match_us = 0;
static uint64 matched_epoch = 0;	/* histories were compared for it */

void
qdb_set_problem(const char *text)
{
	if (text[0] != '\0' && strcmp(text, problem) != 0)
		ereport(LOG, (errmsg("[failover] %s", text)));
	strlcpy(problem, text, sizeof(problem));
}

void
qdb_clear_replay(void)
{
	if (qdb_co.now_us < next_clear_us)
		return;
	next_clear_us = qdb_co.now_us + CLEAR_US;
	qdb_effects.end_blocking_queries();
}

void
qdb_forget_end_of_wal(void)
{
	have_end = false;
}

const QdbEndOfWal *
qdb_own_end_of_wal(void)
{
	static bool was_consistent = false; /* at the last scan */
	bool		consistent = HotStandbyActive();
	char		why[QDB_REASON_SIZE] = "";

	if (have_end && end_epoch == qdb_shared->promised)
		return &own_end;
	/* The streamer wakes this process when startup is consistent. */
	if ((qdb_co.now_us < next_scan_us && consistent == was_consistent) || !qdb_effects.park_receiver())
		return NULL;
	was_consistent = consistent;
	have_end = qdb_effects.end_of_wal(qdb_co.state, &own_end, why);
	end_epoch = qdb_shared->promised;
	next_scan_us = qdb_now_us() + SCAN_US;
	qdb_set_problem(have_end ? "" : why);
	return have_end ? &own_end : NULL;
}

void
qdb_fence_seat(void)
{
	if (!qdb_co.handing_over)
		qdb_co.fenced_unix_us = qdb_unix_us();
	qdb_co.handing_over = true;
	SpinLockAcquire(&qdb_shared->mutex);
	qdb_shared->fenced = true;
	SpinLockRelease(&qdb_shared->mutex);
}

/* A writable server without the seat becomes a standby; does not return when it works (I15). */
static void
stop_primary(const char *reason)
{
	SpinLockAcquire(&qdb_shared->mutex);
	qdb_shared->open_epoch = 0;
	qdb_shared->fenced = true;
	SpinLockRelease(&qdb_shared->mutex);

	/*
	 * Fenced it is; a postmaster that hangs would only leave it without a
	 * coordinator.
	 */
	if (qdb_co.now_us < next_demote_us || qdb_postmaster_hangs())
		return;
	next_demote_us = qdb_co.now_us + DEMOTE_US;
	qdb_effects.demote(reason);
}

static void
clear_target(void)
{
	SpinLockAcquire(&qdb_shared->mutex);
	qdb_shared->target_epoch = 0;
	qdb_shared->target_member = 0;
	qdb_shared->target_donor = false;
	SpinLockRelease(&qdb_shared->mutex);
}

void
qdb_drop_donor(void)
{
	if (!qdb_shared->target_donor)
		return;
	clear_target();
	qdb_forget_end_of_wal();
}

/*
 * I2: from promising on no WAL of an older epoch is taken or acknowledged, then
 * the receiver ends, then the promise becomes durable.  True once it is.
 */
static bool
make_promise(uint64 epoch, bool will_report)
{
	bool		held;

	if (qdb_shared->promised >= epoch)
		return true;
	SpinLockAcquire(&qdb_shared->mutex);
	held = qdb_clone_holds();
	if (!held)
	{
		qdb_shared->promising = epoch;
		qdb_shared->target_epoch = 0;
		qdb_shared->target_member = 0;
		qdb_shared->target_donor = false;
	}
	SpinLockRelease(&qdb_shared->mutex);
	if (held)
		return false;
	qdb_forget_end_of_wal();
	if (!qdb_effects.park_receiver())
		return false;
	if (will_report && qdb_lease_blocks_report())	/* I9 */
		return false;
	if (!qdb_promise_store(epoch))
	{
		qdb_set_problem("cannot store its promise");
		return false;
	}
	SpinLockAcquire(&qdb_shared->mutex);
	qdb_shared->promised = epoch;
	SpinLockRelease(&qdb_shared->mutex);
	next_scan_us = 0;
	next_report_us = 0;
	return true;
}

/* Without a majority a report is repeated for as long as that lasts; one line says it all. */
static void
log_report(const QdbCommand *command)
{
	static uint64 logged_epoch = 0;
	static uint64 logged_end = 0;

	if (logged_epoch == command->epoch && logged_end == command->report.end_lsn)
		return;
	logged_epoch = command->epoch;
	logged_end = command->report.end_lsn;
	ereport(LOG, (errmsg("[failover] reporting for epoch %llu: WAL ends at %X/%X of timeline %u, epoch %llu",
						 (unsigned long long) command->epoch, LSN_FORMAT_ARGS((XLogRecPtr) command->report.end_lsn),
						 command->report.last_timeline, (unsigned long long) command->report.last_epoch)));
}

/* Repeated until the state has the report, of this very boot. */
static void
send_report(const QdbEndOfWal *end)
{
	const QdbReport *report = qdb_report_of(qdb_co.state, qdb_co.self.member);
	QdbCommand	command;

	if (report != NULL && report->boot == qdb_co.self.boot &&
		report->incarnation == qdb_co.self.incarnation && report->end_lsn == end->end &&
		report->last_epoch == end->epoch)
		return;
	if (qdb_co.now_us < next_report_us)
		return;
	next_report_us = qdb_co.now_us + REPORT_US;
	memset(&command, 0, sizeof(command));
	command.type = QDB_CMD_REPORT;
	command.epoch = qdb_shared->promised;
	command.report.member = qdb_co.self.member;
	command.report.incarnation = qdb_co.self.incarnation;
	command.report.boot = qdb_co.self.boot;
	command.report.last_epoch = end->epoch;
	command.report.last_timeline = end->timeline;
	command.report.end_lsn = end->end;
	log_report(&command);
	(void) qdb_propose(&command, NULL, 0, 0);
}

/* An epoch is open and this node is in recovery. */
static void
answer_epoch(const QdbState *state)
{
	bool		voter = qdb_counts_as_voter(state, qdb_co.self.member);
	const QdbEndOfWal *end;

	qdb_clear_replay();
	if (!make_promise(state->epoch, voter) || !voter)
		return;
	if (qdb_take_donation(state))
		return;
	end = qdb_own_end_of_wal();
	if (end == NULL)
		return;
	send_report(end);
	qdb_give_donation(state, end);
}

void
qdb_set_target(const QdbMember *holder, uint64 epoch, bool donor)
{
	/* The receiver will write: what was scanned is no longer the end. */
	qdb_forget_end_of_wal();
	SpinLockAcquire(&qdb_shared->mutex);
	if (!qdb_clone_holds())
	{
		strlcpy(qdb_shared->target_host, holder->host, sizeof(qdb_shared->target_host));
		qdb_shared->target_port = holder->replication_port;
		qdb_shared->target_member = holder->id;
		qdb_shared->target_donor = donor;
		qdb_shared->target_epoch = epoch;
	}
	SpinLockRelease(&qdb_shared->mutex);
	WalRcvForceReply();			/* a receiver that waits for a target wakes */
	ereport(LOG, (errmsg("[replication] following node \"%s\" in epoch %llu",
						 holder->name, (unsigned long long) epoch)));
}

/* Somebody else holds the seat and this node is in recovery (I3). */
static void
follow_holder(const QdbState *state, const QdbGrant *grant)
{
	const QdbMember *holder = qdb_member_by_id(state, grant->holder);
	const QdbMember *source;
	const QdbEndOfWal *end;
	char		why[QDB_REASON_SIZE] = "";

	if (!grant->opened)
		qdb_clear_replay();
	if (!make_promise(grant->epoch, false) || holder == NULL)
		return;
	/* An earlier process of this boot may have set the target already. */
	if (qdb_shared->target_epoch == grant->epoch)
	{
		source = qdb_stream_source(grant, holder);
		if (qdb_shared->target_member != source->id ||
			qdb_shared->target_port != source->replication_port ||
			strcmp(qdb_shared->target_host, source->host) != 0)
			qdb_set_target(source, grant->epoch, false);
		qdb_leave_other_source();
		return;
	}
	if (matched_epoch == grant->epoch || qdb_co.now_us < next_match_us)
		return;
	end = qdb_own_end_of_wal();
	if (end == NULL)
		return;
	if (qdb_effects.match_history(state, end, why) < 0)
	{
		qdb_set_problem(why[0] != '\0' ? why : "its WAL has left the primary's history");
		next_match_us = qdb_now_us() + MATCH_US;
		if (strncmp(why, QDB_NEEDS_REWIND, strlen(QDB_NEEDS_REWIND)) != 0)
			return;
		matched_epoch = grant->epoch;
		qdb_want_rewind(why);
		return;
	}
	matched_epoch = grant->epoch;
	qdb_note_trim();
	qdb_forget_rewind();
	qdb_set_problem("");
	qdb_set_target(holder, grant->epoch, false);
}

/*
 * The primary's limits count as soon as it has said them, what the WAL demands for as long as
 * it lasts; replay may be paused at either.
 */
static const char *
lacking_limits(bool in_recovery)
{
	static char why[QDB_REASON_SIZE];
	static int64 next_us = 0;
	int32		own[QDB_NLIMITS];
	int32		wanted[QDB_NLIMITS];

	if (!in_recovery)
		return "";
	if (qdb_co.now_us < next_us)
		return why;
	next_us = qdb_co.now_us + LIMITS_US;
	qdb_own_limits(own);
	qdb_wanted_limits(wanted);
	if (qdb_limits_suffice(own, wanted, why))
		(void) qdb_effects.limits_demanded(why);
	return why;
}

/* Reasons that do not come from a step. */
static const char *
standing_reason(const QdbMember *self)
{
	if (self == NULL)
		return "it is not in the replicated state yet";
	if (self->role == QDB_ROLE_LEARNER)
		return "it is a learner: it gets a vote when it has caught up and the number of voters stays odd";
	if (self->role != QDB_ROLE_VOTER)
		return "it is no voter";
	if (self->priority <= 0)
		return "its priority is 0";
	return "";
}

static XLogRecPtr
current_wal_end(bool in_recovery)
{
	XLogRecPtr	end;

	if (!in_recovery)
		return GetFlushRecPtr(NULL);
	end = GetXLogReplayRecPtr(NULL);
	if (qdb_shared->receiver_epoch != 0)
		end = Max(end, GetWalRcvFlushRecPtr(NULL, NULL));
	if (have_end)
		end = Max(end, own_end.end);
	return end;
}

static int
current_node_state(bool in_recovery)
{
	if (!in_recovery)
	{
		if (qdb_shared->open_epoch != 0 && !qdb_shared->fenced)
			return QDB_NODE_PRIMARY;
		return QDB_NODE_FENCED;
	}
	if (qdb_shared->target_epoch != 0 && qdb_shared->receiver_epoch == qdb_shared->target_epoch)
		return QDB_NODE_REPLICA;
	return problem[0] != '\0' ? QDB_NODE_STANDBY : QDB_NODE_FOLLOWER;
}

static void
publish_role(bool in_recovery)
{
	const char *reason = lacking_limits(in_recovery);
	int			node_state = current_node_state(in_recovery);

	if (reason[0] == '\0')
		reason = problem;
	if (reason[0] == '\0')
		reason = qdb_sickness();
	if (reason[0] == '\0')
		reason = standing_reason(qdb_self_member());

	strlcpy(qdb_co.why_not, reason, sizeof(qdb_co.why_not));
	qdb_co.wal_end = current_wal_end(in_recovery);
	SpinLockAcquire(&qdb_shared->mutex);
	qdb_shared->node_state = node_state;
	qdb_shared->wal_end = qdb_co.wal_end;
	strlcpy(qdb_shared->why_not, qdb_co.why_not, sizeof(qdb_shared->why_not));
	SpinLockRelease(&qdb_shared->mutex);
}

/* A member that the others have removed stops (raft.md: nobody else tells it). */
static void
leave_cluster(bool in_recovery)
{
	qdb_set_problem("it was removed from the cluster");
	clear_target();
	qdb_learn_removal();
	if (!in_recovery)
		stop_primary("this node was removed from the cluster");
}

static void
take_step(const QdbState *state, bool in_recovery)
{
	const QdbGrant *grant = qdb_current_grant(state);
	QdbNodeView view = {
		.self = qdb_self_boot(),
		.in_recovery = in_recovery,
		.promoting = qdb_effects.promoting(),
		.promised = qdb_shared->promised,
		.seat_epoch = qdb_shared->seat_epoch,
		.open_epoch = qdb_shared->open_epoch,
		.record_end = qdb_shared->epoch_record_end,
		.quorum_epoch = pg_atomic_read_u64(&qdb_shared->quorum_epoch),
		.quorum_lsn = pg_atomic_read_u64(&qdb_shared->quorum_lsn)
	};
	QdbNodeStep step = qdb_node_step(state, &view);

	if (step != QDB_STEP_ANSWER)
		qdb_end_donation();

	switch (step)
	{
		case QDB_STEP_NONE:
			break;
		case QDB_STEP_LEAVE:
			leave_cluster(in_recovery);
			break;
		case QDB_STEP_STOP:
			if (qdb_handover_lingers())
				break;
			stop_primary(grant == NULL ? "a new epoch was opened" : "this node does not hold the seat");
			break;
		case QDB_STEP_ANSWER:
			answer_epoch(state);
			break;
		case QDB_STEP_FOLLOW:
			follow_holder(state, grant);
			break;
		default:
			qdb_seat_turn(step, grant);
	}
}

void
qdb_role_turn(void)
{
	bool		in_recovery = RecoveryInProgress();

	take_step(qdb_co.state, in_recovery);
	publish_role(in_recovery);
}
