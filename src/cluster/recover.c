/*-------------------------------------------------------------------------
 *
 * recover.c
 *		quantadb_recover(): this node alone becomes a new cluster.
 *
 * For when a majority of the voters is gone for good.  Nothing is asked of anybody, so it
 * works without a Raft majority; and it is refused where there is one.
 *
 * Order: keys, a new Raft folder whose snapshot is the new state, the exchange of the
 * two folders (where the file system cannot do that at once, in two steps of which the
 * second is done at the next start if need be), identity.  From the exchange on this
 * node belongs to the new cluster: one that dies in between takes the identity from the
 * state when it starts (qdb_finish_recovery).  Before it, nothing but its keys has changed, and the call is
 * repeated.  Then this process starts again, and the rest is a failover among one voter.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <stdio.h>
#include <unistd.h>

#include "access/xlog.h"
#include "common/file_perm.h"
#include "miscadmin.h"
#include "port.h"
#include "storage/fd.h"
#include "storage/ipc.h"

#include "cluster/internal.h"

#define NEW_DIR			QDB_DIR "/raft.new"
#define OLD_DIR			QDB_DIR "/raft.old"
#define SKIP_MAX		64		/* timelines that are left out, at most */
#define ANSWER_US		(200 * 1000)

static int64 restart_us = 0;	/* recovered; this process starts again then */

/* What is known of the WAL that others had and this node has not. */
static void
tell_loss(const QdbState *state, char *text, size_t size)
{
	const QdbPeer *most = NULL;
	const QdbMember *member;

	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
	{
		const QdbPeer *peer = qdb_mesh_slot(i);

		if (peer->member != 0 && peer->wal_end != 0 && (most == NULL || peer->wal_end > most->wal_end))
			most = peer;
	}
	member = most == NULL ? NULL : qdb_member_by_id(state, most->member);
	if (member == NULL)
		snprintf(text, size, "This node's WAL ends at %X/%X. No other member was heard since it started: "
				 "whatever they acknowledged together after that is lost.", LSN_FORMAT_ARGS(qdb_co.wal_end));
	else if (most->wal_end > qdb_co.wal_end)
		snprintf(text, size, "This node's WAL ends at %X/%X. Node \"%s\", last heard %lld s ago, had it up to %X/%X: "
				 "%llu bytes, and what was acknowledged without this node since, are lost.",
				 LSN_FORMAT_ARGS(qdb_co.wal_end), member->name,
				 (long long) ((qdb_co.now_us - most->heard_us) / 1000000), LSN_FORMAT_ARGS(most->wal_end),
				 (unsigned long long) (most->wal_end - qdb_co.wal_end));
	else
		snprintf(text, size, "This node's WAL ends at %X/%X, and nobody was heard to have more; the last was node \"%s\", %lld s ago. "
				 "What others acknowledged without this node since is lost.",
				 LSN_FORMAT_ARGS(qdb_co.wal_end), member->name,
				 (long long) ((qdb_co.now_us - most->heard_us) / 1000000));
}

/* A majority that can be reached decides for itself. */
static bool
has_majority(const QdbState *state)
{
	uint64		ids[QDB_MAX_MEMBERS + 1];
	size_t		n = 0;

	ids[n++] = qdb_co.self.member;
	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
	{
		if (qdb_mesh_slot(i)->member != 0 && qdb_peer_connected(qdb_mesh_slot(i)))
			ids[n++] = qdb_mesh_slot(i)->member;
	}
	return qdb_is_majority(state, ids, n);
}

/*
 * Both names change at once, where the file system can.  Elsewhere the new folder, which is
 * complete and durable, takes its name after the old one has lost it: one that dies in
 * between has both aside and none in place, and qdb_finish_exchange goes on.
 */
static bool
exchange_folders(void)
{
	fsync_fname(QDB_DIR, true);
	if (renameat2(AT_FDCWD, NEW_DIR, AT_FDCWD, QDB_RAFT_DIR, RENAME_EXCHANGE) == 0)
		return true;
	if (errno != EINVAL && errno != ENOSYS && errno != EOPNOTSUPP)
		return false;
	qdb_drop_folder(OLD_DIR);
	if (rename(QDB_RAFT_DIR, OLD_DIR) != 0)
		return false;
	fsync_fname(QDB_DIR, true);
	if (rename(NEW_DIR, QDB_RAFT_DIR) != 0)
	{
		int			save_errno = errno;

		(void) rename(OLD_DIR, QDB_RAFT_DIR);
		errno = save_errno;
		return false;
	}
	return true;
}

/* At the start, before Raft is opened.  ERROR when it cannot be done. */
void
qdb_finish_exchange(void)
{
	struct stat st;

	if (stat(OLD_DIR, &st) != 0)
		return;
	if (stat(QDB_RAFT_DIR, &st) != 0 && errno == ENOENT && stat(NEW_DIR, &st) == 0)
	{
		ereport(LOG, (errmsg("[cluster] The exchange of \"%s\" goes on", QDB_RAFT_DIR)));
		if (rename(NEW_DIR, QDB_RAFT_DIR) != 0)
			ereport(ERROR, (errcode_for_file_access(),
							errmsg("could not rename directory \"%s\" to \"%s\": %m", NEW_DIR, QDB_RAFT_DIR)));
		fsync_fname(QDB_DIR, true);
	}
	if (stat(QDB_RAFT_DIR, &st) == 0)
		qdb_drop_folder(OLD_DIR);
}

static bool
store_folder(const QdbState *state, char *why, size_t why_size)
{
	qdb_drop_folder(NEW_DIR);
	if (mkdir(NEW_DIR, pg_dir_create_mode) != 0)
	{
		snprintf(why, why_size, "could not create directory \"%s\": %m", NEW_DIR);
		return false;
	}
	if (!qdb_raft_bootstrap(NEW_DIR, qdb_co.self.member, why, why_size) ||
		!qdb_raft_begin_with(NEW_DIR, qdb_co.self.member, state, why, why_size))
		return false;
	qdb_close_raft();
	if (!exchange_folders())
	{
		snprintf(why, why_size, "could not rename directory \"%s\": %m", NEW_DIR);
		return false;
	}
	fsync_fname(QDB_DIR, true);
	qdb_drop_folder(NEW_DIR);
	qdb_drop_folder(OLD_DIR);
	return true;
}

/* In the order of the header.  False with why. */
static bool
become_cluster(QdbState *state, QdbRecovery *recovery, char *why, size_t why_size)
{
	QdbIdentity old = qdb_co.self;
	QdbResult	result;

	strlcpy(qdb_co.self.cluster_id, recovery->cluster_id, sizeof(qdb_co.self.cluster_id));
	if (!qdb_make_certificates(recovery->key_hash, why, why_size))
	{
		qdb_co.self = old;
		return false;
	}
	result = qdb_state_recover(state, recovery);
	if (result != QDB_OK)
		strlcpy(why, qdb_result_text(result), why_size);
	if (result != QDB_OK || !store_folder(state, why, why_size))
	{
		qdb_co.self = old;
		return false;
	}
	qdb_identity_store(&qdb_co.self);
	return true;
}

static bool
fill_recovery(QdbRecovery *recovery, const char *name)
{
	uint8		skip;

	memset(recovery, 0, sizeof(*recovery));
	recovery->member = qdb_co.self.member;
	recovery->promised = qdb_shared->promising;
	recovery->time_us = qdb_unix_us();
	strlcpy(recovery->cluster_name, name, sizeof(recovery->cluster_name));
	if (!pg_strong_random(&skip, sizeof(skip)) || !qdb_make_cluster_id(recovery->cluster_id))
		return false;
	recovery->skip_timelines = 1 + skip % SKIP_MAX;
	return true;
}

/* NULL: it may be tried. */
static const char *
refuse_recovery(const QdbState *state, const char **hint)
{
	const QdbMember *self = qdb_member_by_id(state, qdb_co.self.member);

	*hint = "Try again in a few seconds.";
	if (restart_us != 0)
		return "this node is recovering already";
	if (self == NULL)
		return "this node does not know its cluster yet";
	if (has_majority(state))
	{
		*hint = "Wait for a primary, or use quantadb_promote(); see the view quantadb_nodes.";
		return "a majority of the voters can be reached from here: nothing is lost";
	}
	*hint = "Set quantadb.priority above 0, reload, or take another survivor.";
	return self->priority <= 0 ? "its priority is 0, which means never primary" : NULL;
}

void
qdb_start_recover(int slot, const QdbRequest *request)
{
	QdbState   *state = palloc(sizeof(QdbState));
	char		why[QDB_REASON_SIZE] = "";
	char		loss[2 * QDB_REASON_SIZE];
	char		answer[QDB_REQUEST_TEXT];
	const char *refusal;
	const char *hint = "Copy what it has with pg_basebackup and begin anew with quantadb_init().";
	QdbRecovery recovery;

	if (!qdb_raft_foresee(qdb_co.raft, state))
		refusal = "its Raft log cannot be read";
	else
		refusal = refuse_recovery(state, &hint);
	if (refusal == NULL && !fill_recovery(&recovery, request->text))
		refusal = "there are no random numbers";
	if (refusal != NULL)
	{
		qdb_refuse_request(slot, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, refusal, hint);
		return;
	}
	tell_loss(state, loss, sizeof(loss));
	if (!become_cluster(state, &recovery, why, sizeof(why)))
	{
		qdb_refuse_request(slot, ERRCODE_IO_ERROR, why, "Remove the cause and call it again.");
		if (qdb_co.raft == NULL)
			proc_exit(1);
		return;
	}
	ereport(LOG, (errmsg("[cluster] This node begins the new cluster %s; a majority of the old one was given up",
						 qdb_co.self.cluster_id),
				  errdetail("%s", loss)));
	restart_us = qdb_now_us() + ANSWER_US;
	qdb_mesh_stop();
	snprintf(answer, sizeof(answer), "%s %s", qdb_co.self.cluster_id, loss);
	qdb_answer_request(slot, 0, answer);
}

/*
 * True: nothing else of this turn is to be done.  Who is in recovery needs no crash cycle: this
 * process starts again as a member of the new cluster.
 */
bool
qdb_recover_turn(void)
{
	if (restart_us == 0)
		return false;
	if (qdb_co.now_us < restart_us)
		return true;
	LWLockAcquire(qdb_shared->state_lock, LW_EXCLUSIVE);
	qdb_shared->identity = qdb_co.self;
	memset(qdb_shared->peers, 0, sizeof(qdb_shared->peers));
	LWLockRelease(qdb_shared->state_lock);
	SpinLockAcquire(&qdb_shared->mutex);
	qdb_shared->target_epoch = 0;
	qdb_shared->target_member = 0;
	qdb_shared->open_epoch = 0;
	SpinLockRelease(&qdb_shared->mutex);
	if (!RecoveryInProgress())
		qdb_effects.demote("this node begins a new cluster");
	proc_exit(1);
}

/* At the start, Raft just opened: the exchange was made and the identity not yet stored. */
void
qdb_finish_recovery(void)
{
	const QdbMember *self = qdb_self_member();

	if (self == NULL || strcmp(qdb_co.state->cluster_id, qdb_co.self.cluster_id) == 0)
		return;
	ereport(LOG, (errmsg("[cluster] This node belongs to the new cluster %s", qdb_co.state->cluster_id)));
	strlcpy(qdb_co.self.cluster_id, qdb_co.state->cluster_id, sizeof(qdb_co.self.cluster_id));
	qdb_identity_store(&qdb_co.self);
	LWLockAcquire(qdb_shared->state_lock, LW_EXCLUSIVE);
	qdb_shared->identity = qdb_co.self;
	LWLockRelease(qdb_shared->state_lock);
}
