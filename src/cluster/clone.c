/*-------------------------------------------------------------------------
 *
 * clone.c
 *		What the coordinator does about a clone of this node's data.
 *
 * The resync worker does the work (failover/clone.c).  Here it is started, started
 * again where it died, and its end is told to the journal.
 *
 * A node that joins by a clone is in the replicated state already, as one that does not
 * vote: it takes part in Raft, so that it knows who the primary is and the others
 * see how far it has come.  For its own backends it is no member: its old data
 * stays as it is until the plan is applied.  If it has to give up it removes itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "utils/memutils.h"

#include "cluster/internal.h"

#define START_US			(1000 * 1000)
#define LEAVE_US			(10 * 1000 * 1000)

static BackgroundWorkerHandle *worker = NULL;
static int64 next_start_us = 0;
static bool wanted = false;		/* a member's clone */
static int64 leave_us = 0;		/* joining was given up; when not to wait any
								 * longer */
static bool leave_answered = false;
static bool leave_sent = false;

bool
qdb_resync_running(void)
{
	pid_t		pid;

	if (worker != NULL && GetBackgroundWorkerPid(worker, &pid) != BGWH_STOPPED)
		return true;
	if (worker != NULL)
		pfree(worker);
	worker = NULL;
	/* One that an earlier process of the coordinator started. */
	return qdb_shared->clone.worker != 0;
}

bool
qdb_resync_may_start(void)
{
	return qdb_co.now_us >= next_start_us;
}

void
qdb_start_resync(QdbResyncTask task)
{
	BackgroundWorker bgw;
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

	next_start_us = qdb_co.now_us + START_US;
	memset(&bgw, 0, sizeof(bgw));
	bgw.bgw_flags = BGWORKER_SHMEM_ACCESS;
	bgw.bgw_start_time = BgWorkerStart_PostmasterStart;
	bgw.bgw_restart_time = BGW_NEVER_RESTART;
	snprintf(bgw.bgw_name, BGW_MAXLEN, "quantadb resync");
	snprintf(bgw.bgw_type, BGW_MAXLEN, "quantadb resync");
	snprintf(bgw.bgw_library_name, BGW_MAXLEN, "quantadb");
	snprintf(bgw.bgw_function_name, BGW_MAXLEN, "qdb_resync_main");
	bgw.bgw_main_arg = Int32GetDatum((int32) task);
	bgw.bgw_notify_pid = MyProcPid;
	if (!RegisterDynamicBackgroundWorker(&bgw, &worker))
		ereport(LOG, (errmsg("[cluster] No background worker is free for a clone"),
					  errhint("Raise max_worker_processes.")));
	MemoryContextSwitchTo(old);
}

static void
set_phase(QdbClonePhase phase)
{
	SpinLockAcquire(&qdb_shared->mutex);
	memset(&qdb_shared->clone, 0, offsetof(QdbCloneStatus, worker));
	qdb_shared->clone.phase = phase;
	qdb_shared->clone.reason[0] = qdb_shared->clone.hint[0] = '\0';
	SpinLockRelease(&qdb_shared->mutex);
}

static QdbCloneStatus
read_clone(void)
{
	QdbCloneStatus clone;

	SpinLockAcquire(&qdb_shared->mutex);
	clone = qdb_shared->clone;
	SpinLockRelease(&qdb_shared->mutex);
	return clone;
}

/* ---- a node that joins ---- */

static void
show_joining(int node_state, const char *why_not)
{
	strlcpy(qdb_co.why_not, why_not, sizeof(qdb_co.why_not));
	qdb_co.wal_end = InvalidXLogRecPtr;
	SpinLockAcquire(&qdb_shared->mutex);
	qdb_shared->node_state = node_state;
	memcpy(qdb_shared->why_not, qdb_co.why_not, sizeof(qdb_co.why_not));
	SpinLockRelease(&qdb_shared->mutex);
}

static void
take_part(void)
{
	LWLockAcquire(qdb_shared->state_lock, LW_EXCLUSIVE);
	qdb_shared->identity = qdb_co.self;
	LWLockRelease(qdb_shared->state_lock);
	set_phase(QDB_CLONE_CONNECTING);
	leave_us = 0;
	leave_answered = leave_sent = false;
	next_start_us = 0;
	qdb_shared->joining = true;
}

bool
qdb_begin_joining(char *why, size_t why_size)
{
	if (!qdb_pending_store(&qdb_co.self))
	{
		snprintf(why, why_size, "could not store the identity");
		return false;
	}
	if (!qdb_open_raft(why, why_size))
	{
		(void) qdb_pending_remove();
		return false;
	}
	take_part();
	return true;
}

void
qdb_resume_joining(void)
{
	char		why[QDB_REASON_SIZE] = "";

	if (!qdb_pending_load(&qdb_co.self))
		return;
	/* Peers refuse a boot that they have seen. */
	qdb_co.self.boot++;
	if (!qdb_pending_store(&qdb_co.self) || !qdb_open_raft(why, sizeof(why)))
	{
		ereport(LOG, (errmsg("[cluster] Joining does not go on: %s", why)));
		memset(&qdb_co.self, 0, sizeof(qdb_co.self));
		return;
	}
	qdb_certificates_begin();
	ereport(LOG, (errmsg("[cluster] Joining as member %llu goes on",
						 (unsigned long long) qdb_co.self.member)));
	take_part();
}

static void
left(uint64 a, uint64 b, bool known, QdbResult result)
{
	leave_answered = known;
	leave_sent = false;
}

/* This node is a stranger again, as it was before. */
static void
stop_joining(void)
{
	ereport(LOG, (errmsg("[cluster] Joining was given up: %s", read_clone().reason)));
	(void) qdb_pending_remove();
	(void) unlink(QDB_DIR "/promise");
	qdb_close_raft();
	qdb_mesh_stop();
	qdb_state_init(qdb_co.state);
	memset(&qdb_co.self, 0, sizeof(qdb_co.self));
	LWLockAcquire(qdb_shared->state_lock, LW_EXCLUSIVE);
	memset(&qdb_shared->identity, 0, sizeof(qdb_shared->identity));
	qdb_state_init(&qdb_shared->state);
	LWLockRelease(qdb_shared->state_lock);
	show_joining(QDB_NODE_INERT, "");
	qdb_shared->joining = false;
	qdb_start_resync(QDB_RESYNC_CLEAN);
}

static void
give_up_joining(const QdbCloneStatus *clone)
{
	const QdbMember *self = qdb_self_member();
	QdbCommand	command;

	if (leave_us == 0)
	{
		char		reason[QDB_REASON_SIZE];

		leave_us = qdb_co.now_us + LEAVE_US;
		snprintf(reason, sizeof(reason), "could not be cloned: %.200s", clone->reason);
		qdb_note_event("clone_failed", qdb_co.self.name, reason);
	}
	if (leave_answered || qdb_co.now_us > leave_us || self == NULL)
	{
		stop_joining();
		return;
	}
	if (leave_sent)
		return;
	memset(&command, 0, sizeof(command));
	command.type = QDB_CMD_MEMBER_REMOVE;
	command.member.id = self->id;
	command.membership = qdb_co.state->membership;
	strlcpy(command.node, self->name, sizeof(command.node));
	leave_sent = qdb_propose(&command, left, 0, 0);
}

/* Once for each source, so that a lost connection is no news. */
static void
note_source(const QdbCloneStatus *clone)
{
	static uint64 noted_epoch = 0;
	static uint64 noted_source = 0;
	const QdbMember *source = qdb_member_by_id(qdb_co.state, clone->source);
	char		reason[QDB_REASON_SIZE];

	if (clone->phase != QDB_CLONE_COPYING || source == NULL ||
		(clone->epoch == noted_epoch && clone->source == noted_source))
		return;
	noted_epoch = clone->epoch;
	noted_source = clone->source;
	snprintf(reason, sizeof(reason), "gets its data from %s", source->name);
	qdb_note_event("clone", qdb_co.self.name, reason);
}

static void
describe(const QdbCloneStatus *clone, char *text)
{
	if (clone->reason[0] != '\0' && clone->phase < QDB_CLONE_COPYING)
		snprintf(text, QDB_REASON_SIZE, "its data is being cloned: %.200s", clone->reason);
	else
		snprintf(text, QDB_REASON_SIZE, "its data is being cloned");
}

void
qdb_joining_turn(void)
{
	QdbCloneStatus clone = read_clone();
	char		text[QDB_REASON_SIZE];

	qdb_publish_state();
	qdb_publish_peers();		/* the clone chooses among them */
	/* The others have removed it meanwhile. */
	if (((qdb_co.state->epoch != 0 && qdb_self_member() == NULL &&
		  qdb_co.self.member < qdb_co.state->next_member_id) || qdb_removal_learned()) && clone.phase != QDB_CLONE_FAILED &&
		!qdb_resync_running())
	{
		SpinLockAcquire(&qdb_shared->mutex);
		qdb_shared->clone.phase = QDB_CLONE_FAILED;
		strlcpy(qdb_shared->clone.reason, "it was removed from the cluster", QDB_REASON_SIZE);
		SpinLockRelease(&qdb_shared->mutex);
		clone = read_clone();
	}
	describe(&clone, text);
	show_joining(QDB_NODE_STANDBY, text);
	qdb_heartbeat_turn();
	qdb_certificates_turn();
	qdb_watch_turn();
	note_source(&clone);
	if (clone.phase == QDB_CLONE_FAILED)
		give_up_joining(&clone);
	else if (!qdb_resync_running() && qdb_resync_may_start() && qdb_co.state->epoch != 0)
		qdb_start_resync(QDB_RESYNC_JOIN);
}

/* ---- a member ---- */

bool
qdb_clone_wanted(void)
{
	return wanted;
}

void
qdb_want_clone(const char *reason)
{
	if (wanted)
		return;
	wanted = true;
	set_phase(QDB_CLONE_CONNECTING);
	qdb_note_event("clone_due", qdb_co.self.name, reason);
}

/* The stream was refused for want of WAL: nothing but a clone helps. */
static bool
lacks_wal(void)
{
	char		refusal[QDB_REASON_SIZE];

	if (qdb_shared->receiver_epoch != 0 || qdb_shared->target_epoch == 0)
		return false;
	SpinLockAcquire(&qdb_shared->mutex);
	memcpy(refusal, qdb_shared->receiver_refusal, sizeof(refusal));
	SpinLockRelease(&qdb_shared->mutex);
	refusal[sizeof(refusal) - 1] = '\0';
	return strstr(refusal, "has been removed; re-clone this node") != NULL;
}

/* A boot after a clone: says so, and removes what is left of the old data. */
static void
finish_clone(void)
{
	static bool looked = false;
	struct stat st;

	if (looked)
		return;
	looked = true;
	if (stat(QDB_CLONE_DONE, &st) != 0)
		return;
	qdb_note_event("clone_done", qdb_co.self.name, "has the cluster's data and catches up");
	qdb_start_resync(QDB_RESYNC_CLEAN);
}

void
qdb_clone_turn(void)
{
	QdbCloneStatus clone;

	finish_clone();
	if (!wanted)
	{
		if (!lacks_wal())
			return;
		/* It follows nobody while it gets its data anew. */
		SpinLockAcquire(&qdb_shared->mutex);
		qdb_shared->target_epoch = 0;
		qdb_shared->target_member = 0;
		SpinLockRelease(&qdb_shared->mutex);
		qdb_set_problem("WAL that it needs was removed on the primary: needs a clone");
		qdb_want_clone("WAL that it needs was removed on the primary");
	}
	clone = read_clone();
	note_source(&clone);
	if (clone.phase == QDB_CLONE_FAILED)
	{
		char		reason[QDB_REASON_SIZE];

		snprintf(reason, sizeof(reason), "could not be cloned: %.200s", clone.reason);
		qdb_note_event("clone_failed", qdb_co.self.name, reason);
		qdb_set_problem(reason);
		wanted = false;
		set_phase(QDB_CLONE_NONE);
	}
	else if (!qdb_resync_running() && qdb_resync_may_start())
		qdb_start_resync(QDB_RESYNC_CLONE);
}
