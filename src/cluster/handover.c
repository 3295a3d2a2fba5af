/*-------------------------------------------------------------------------
 *
 * handover.c
 *		A seat that is given up on purpose: switchover and shutdown.
 *
 * Switchover, on the holder: a NOTE tells every node which member is wanted; then
 * fence, wait until a quorum and the target have this node's WAL, RELEASE.
 * The leader opens the next epoch and the reports decide as always, so a
 * target that does not have the most WAL cannot win (I6).
 *
 * Shutdown: background workers end before PostgreSQL writes its shutdown
 * checkpoint, which would be WAL that nobody else has (hazards 32).  So the holder
 * fences, releases its seat, and ends the server without that checkpoint.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>
#include <stdio.h>

#include "access/xlog.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/pidfile.h"

#include "cluster/internal.h"

#define PROMOTE_US			(10 * 1000 * 1000)
#define CATCH_UP_US			(2 * 1000 * 1000)
#define RELEASE_US			(200 * 1000)
#define MAX_WAITERS			QDB_MAX_REQUESTS

/* Requests that wait for their target to open. */
typedef struct Waiter
{
	bool		used;
	int			slot;
	uint64		target;
	uint64		after_epoch;
	int64		deadline_us;
}			Waiter;

static Waiter waiters[MAX_WAITERS];

/* The holder's side. */
static uint64 target = 0;		/* 0: none under way */
static bool noted = false;
static XLogRecPtr goal;
static int64 give_up_us;
static int64 next_release_us;
static bool release_sent = false;
static int	nunanswered = 0;	/* RELEASEs that may still commit */

static void
refuse(int slot, const char *why, const char *hint)
{
	qdb_refuse_request(slot, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, why, hint);
}

static void
forget_waiter(Waiter * waiter, const char *why)
{
	if (why != NULL)
		refuse(waiter->slot, why, "Look at quantadb_nodes and the journal.");
	waiter->used = false;
}

static void
accepted(uint64 slot, uint64 unused, bool known, QdbResult result)
{
	for (int i = 0; i < MAX_WAITERS; i++)
	{
		if (waiters[i].used && waiters[i].slot == (int) slot && known && result != QDB_OK)
			forget_waiter(&waiters[i], "the primary cannot hand its seat over now: the target "
						  "does not stream from it, or another change is under way");
	}
}

static void
ask_holder(int slot, const QdbGrant *grant, uint64 wanted)
{
	Waiter	   *waiter = &waiters[slot];

	waiter->used = true;
	waiter->slot = slot;
	waiter->target = wanted;
	waiter->after_epoch = grant->epoch;
	waiter->deadline_us = qdb_co.now_us + PROMOTE_US;
	if (qdb_grant_is_ours(grant))
		accepted(slot, 0, true, qdb_begin_handover(wanted));
	else if (!qdb_ask_handover(grant->holder, wanted, accepted, slot, 0))
		forget_waiter(waiter, "too many commands are under way");
}

void
qdb_start_promote(int slot, const QdbRequest *request)
{
	const QdbState *state = qdb_co.state;
	const QdbGrant *grant = qdb_current_grant(state);
	const QdbMember *member = request->text[0] != '\0' ?
	qdb_member_by_name(state, request->text) : qdb_self_member();

	if (member == NULL)
		qdb_refuse_request(slot, ERRCODE_UNDEFINED_OBJECT, "no such node", NULL);
	else if (request->flag)
		qdb_refuse_request(slot, ERRCODE_FEATURE_NOT_SUPPORTED,
						   "a forced promotion is not available yet", NULL);
	else if (member->role != QDB_ROLE_VOTER || member->priority <= 0)
		refuse(slot, "the node is no voter, or its priority is 0", NULL);
	else if (grant == NULL || !grant->opened)
		refuse(slot, "a failover is under way", "Wait until quantadb_status() shows a primary.");
	else if (grant->holder == member->id)
		qdb_answer_request(slot, grant->epoch, "");
	else if (!qdb_grant_is_ours(grant) && !qdb_peer_connected(qdb_mesh_peer(grant->holder)))
		refuse(slot, "the primary cannot be reached from here",
			   "A failover begins by itself where a majority does not hear it.");
	else
		ask_holder(slot, grant, member->id);
}

static void
turn_waiters(void)
{
	const QdbGrant *grant = qdb_current_grant(qdb_co.state);

	for (int i = 0; i < MAX_WAITERS; i++)
	{
		Waiter	   *waiter = &waiters[i];

		if (!waiter->used)
			continue;
		if (grant != NULL && grant->epoch > waiter->after_epoch && grant->opened)
		{
			if (grant->holder == waiter->target)
			{
				qdb_publish_state();
				qdb_answer_request(waiter->slot, grant->epoch, "");
				forget_waiter(waiter, NULL);
			}
			else
				forget_waiter(waiter, "another node became primary");
		}
		else if (qdb_co.now_us > waiter->deadline_us)
			forget_waiter(waiter, "the switchover did not finish in time");
	}
}

/* Flush position of a streaming member; 0: it does not stream. */
static XLogRecPtr
stream_flush(uint64 member)
{
	XLogRecPtr	flush = 0;

	SpinLockAcquire(&qdb_shared->mutex);
	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
	{
		if (qdb_shared->streams[i].member == member && qdb_shared->streams[i].streaming)
			flush = qdb_shared->streams[i].flush;
	}
	SpinLockRelease(&qdb_shared->mutex);
	return flush;
}

static void
note_done(uint64 member, uint64 unused, bool known, QdbResult result)
{
	if (target != member || noted)
		return;
	if (!known || result != QDB_OK)
	{
		target = 0;
		return;
	}
	noted = true;
	qdb_fence_seat();
	goal = GetFlushRecPtr(NULL);
	give_up_us = qdb_now_us() + CATCH_UP_US;
	next_release_us = 0;
}

QdbResult
qdb_begin_handover(uint64 member_id)
{
	const QdbGrant *grant = qdb_current_grant(qdb_co.state);
	const QdbMember *member = qdb_member_by_id(qdb_co.state, member_id);
	QdbCommand	command;

	if (grant == NULL || !qdb_grant_is_ours(grant) || !grant->opened ||
		qdb_shared->open_epoch != grant->epoch)
		return QDB_STALE;
	if (member == NULL || member->role != QDB_ROLE_VOTER)
		return QDB_NO_MEMBER;
	if (qdb_co.state->change_open || stream_flush(member_id) == 0)
		return QDB_CHANGE_OPEN;
	if (target != 0)
		return target == member_id ? QDB_OK : QDB_CHANGE_OPEN;
	memset(&command, 0, sizeof(command));
	command.type = QDB_CMD_NOTE;
	command.epoch = grant->epoch;
	strlcpy(command.value, "switchover", sizeof(command.value));
	strlcpy(command.node, member->name, sizeof(command.node));
	strlcpy(command.text, "switchover was asked for", sizeof(command.text));
	target = member_id;
	noted = false;
	release_sent = false;
	nunanswered = 0;
	if (!qdb_propose(&command, note_done, member_id, 0))
	{
		target = 0;
		return QDB_TOO_MANY;
	}
	return QDB_OK;
}

static void
note_releasing(uint64 epoch)
{
	SpinLockAcquire(&qdb_shared->mutex);
	qdb_shared->releasing_epoch = epoch;
	SpinLockRelease(&qdb_shared->mutex);
}

/* Refused, and no other one can commit any more: the seat goes on. */
static void
release_done(uint64 a, uint64 b, bool known, QdbResult result)
{
	if (known)
		nunanswered--;
	if (!known || result == QDB_OK || result == QDB_UNCHANGED || nunanswered > 0 || target == 0)
		return;
	ereport(LOG, (errmsg("[failover] the switchover was refused: %s", qdb_result_text(result))));
	note_releasing(0);
	qdb_co.handing_over = false;
	target = 0;
}

static void
propose_release(const QdbGrant *grant, const char *reason)
{
	QdbCommand	command;

	note_releasing(grant->epoch);
	memset(&command, 0, sizeof(command));
	command.type = QDB_CMD_RELEASE;
	command.epoch = grant->epoch;
	command.grant = *grant;
	command.since_us = qdb_co.fenced_unix_us;
	strlcpy(command.text, reason, sizeof(command.text));
	if (qdb_propose(&command, release_done, 0, 0))
		nunanswered++;
}

static bool
quorum_has(XLogRecPtr lsn)
{
	return pg_atomic_read_u64(&qdb_shared->quorum_epoch) == qdb_shared->seat_epoch &&
		pg_atomic_read_u64(&qdb_shared->quorum_lsn) >= lsn;
}

/* Once a RELEASE has left, only its outcome counts: it is repeated, not taken back. */
void
qdb_handover_turn(void)
{
	const QdbGrant *grant = qdb_current_grant(qdb_co.state);

	turn_waiters();
	if (grant == NULL || !qdb_grant_is_ours(grant) || qdb_co.state->seat_released)
		return;
	if (!release_sent && qdb_shared->releasing_epoch == grant->epoch)
	{
		/* An earlier process of this boot sent it: nothing takes it back. */
		qdb_fence_seat();
		target = grant->holder;
		noted = release_sent = true;
	}
	if (target == 0 || !noted)
		return;
	if (!release_sent && qdb_co.now_us > give_up_us)
	{
		ereport(LOG, (errmsg("[failover] the switchover was given up: the target does not keep up")));
		qdb_co.handing_over = false;
		target = 0;
		return;
	}
	if (!release_sent && (!quorum_has(goal) || stream_flush(target) < goal))
		return;
	if (qdb_co.now_us < next_release_us)
		return;
	next_release_us = qdb_co.now_us + RELEASE_US;
	release_sent = true;
	propose_release(grant, "switchover");
}

/* ---- shutdown ---- */

/* Does the postmaster shut down, or was only this worker ended? */
static bool
server_is_stopping(void)
{
	char		line[256];
	FILE	   *file = fopen("postmaster.pid", "r");
	bool		stopping = false;

	if (file == NULL)
		return true;
	for (int i = 1; fgets(line, sizeof(line), file) != NULL; i++)
	{
		if (i == LOCK_FILE_LINE_PM_STATUS)
			stopping = strncmp(line, PM_STATUS_STOPPING, 8) == 0;
	}
	fclose(file);
	return stopping;
}

static void
short_turn(void)
{
	qdb_co.now_us = qdb_now_us();
	qdb_mesh_turn();
	(void) qdb_raft_turn(qdb_co.raft);
	qdb_proposals_turn();
	qdb_publish_state();
	qdb_heartbeat_turn();
	pg_usleep(2000);
}

static void
release_seat(const QdbGrant *grant)
{
	uint64		epoch = grant->epoch;
	int64		end_us = qdb_now_us() + CATCH_UP_US;
	int64		next_us = 0;

	qdb_fence_seat();
	goal = GetFlushRecPtr(NULL);
	while (!quorum_has(goal) && qdb_now_us() < end_us)
		short_turn();
	end_us = qdb_now_us() + 1000 * 1000;
	while (qdb_co.released_epoch != epoch && qdb_now_us() < end_us)
	{
		grant = qdb_current_grant(qdb_co.state);
		if (grant == NULL || !qdb_grant_is_ours(grant))
			break;
		if (qdb_now_us() >= next_us)
		{
			next_us = qdb_now_us() + RELEASE_US;
			propose_release(grant, "shutdown");
		}
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

void
qdb_shut_down(void)
{
	const QdbGrant *grant;
	bool		held;

	if (qdb_co.raft == NULL || !qdb_shared->member)
		proc_exit(server_is_stopping() ? 0 : 1);
	if (!server_is_stopping())
	{
		/* Only this worker was ended: the postmaster starts it again. */
		qdb_close_raft();
		proc_exit(1);
	}
	grant = qdb_current_grant(qdb_co.state);
	held = grant != NULL && qdb_grant_is_ours(grant) && qdb_shared->seat_epoch == grant->epoch;
	if (held)
		release_seat(grant);
	leave_leadership();
	qdb_mesh_goodbye(QDB_GOODBYE_SHUTDOWN);
	qdb_close_raft();
	if (held)
	{
		ereport(LOG, (errmsg("[failover] the seat is given up: ending the server without a shutdown checkpoint")));
		kill(PostmasterPid, SIGQUIT);
	}
	proc_exit(0);
}
