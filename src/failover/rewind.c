/*-------------------------------------------------------------------------
 *
 * rewind.c
 *		One rewind, from the greeting of the source to the crash cycle.
 *
 * The running server is not touched: it goes on replaying what it has, and reports for a
 * newer epoch if one opens.  Everything is staged and durable before the plan
 * counts (I11); then the crash cycle applies it and replay begins at a checkpoint before
 * the fork.  Until it has passed the minimum recovery point the server is not consistent,
 * and a node that is not consistent neither reports nor streams.
 *
 * Process: quantadb resync.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "common/controldata_utils.h"
#include "failover/failover.h"
#include "failover/rewind.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/memutils.h"

void
qdb_rewind_need(QdbRewind *rewind, bool ok)
{
	if (!ok)
		ereport(ERROR, (errcode(ERRCODE_CONNECTION_FAILURE),
						errmsg("%s", qdb_fetch_error(rewind->fetch))));
}

static void
read_own_control(QdbRewind *rewind)
{
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);

	if (!crc_ok)
		ereport(ERROR, (errcode(ERRCODE_DATA_CORRUPTED), errmsg("could not read the control file")));
	rewind->own = *control;
	pfree(control);
	/* hazards 18: without them a page may differ and no record says so. */
	if (!rewind->own.wal_log_hints && rewind->own.data_checksum_version == 0)
		qdb_rewind_impossible("hint bits were not logged here; only a restart as a member changes that");
}

static void
connect_source(QdbRewind *rewind)
{
	const QdbMember *holder = qdb_member_by_id(rewind->state, rewind->grant->holder);
	QdbFilesHello hello = {.version = QDB_TRANSFER_VERSION,.purpose = QDB_FILES_REWIND};
	char		why[QDB_REASON_SIZE] = "";
	bool		retry;

	if (holder == NULL)
		ereport(ERROR, (errmsg("the holder of the seat is no member")));
	strlcpy(hello.cluster_id, rewind->self.cluster_id, sizeof(hello.cluster_id));
	hello.member = rewind->self.member;
	hello.incarnation = rewind->self.incarnation;
	hello.boot = rewind->self.boot;
	hello.epoch = rewind->epoch;
	rewind->fetch = qdb_fetch_open(holder->id, holder->host, holder->replication_port, &hello, &rewind->welcome, why, &retry);
	if (rewind->fetch == NULL)
		ereport(ERROR, (errcode(ERRCODE_CONNECTION_FAILURE),
						errmsg("node \"%s\" does not serve: %s", holder->name, why)));
	if (rewind->welcome.system_identifier != rewind->own.system_identifier ||
		rewind->welcome.timeline != rewind->grant->timeline ||
		rewind->welcome.wal_segment_size != wal_segment_size || rewind->welcome.block_size != BLCKSZ ||
		rewind->welcome.segment_blocks != RELSEG_SIZE)
		ereport(ERROR, (errmsg("node \"%s\" serves other data than epoch " UINT64_FORMAT " has",
							   holder->name, rewind->epoch)));
}

/*
 * What InitWalRecovery will look at (hazards 11): the checkpoint and the minimum
 * recovery point lie on the history that it will follow.
 */
static void
check_recovery(const QdbRewind *rewind)
{
	TimeLineID	tip = rewind->welcome.timeline;

	if (qdb_history_owner(&rewind->history, tip, rewind->checkpoint_lsn + 1) != rewind->checkpoint.ThisTimeLineID ||
		qdb_history_owner(&rewind->history, tip, rewind->min_recovery) != tip ||
		rewind->checkpoint_lsn >= rewind->fork || rewind->min_recovery < rewind->fork)
		qdb_rewind_impossible("recovery would not start from the checkpoint at %X/%X of timeline %u",
							  LSN_FORMAT_ARGS(rewind->checkpoint_lsn), rewind->checkpoint.ThisTimeLineID);
}

/*
 * I10, I11: from here to the crash cycle nothing is promised or followed, which the
 * coordinator respects while the phase is STAGED.
 */
static void
hold_still(const QdbRewind *rewind)
{
	bool		still;

	SpinLockAcquire(&qdb_shared->mutex);
	still = qdb_shared->promised == rewind->epoch && qdb_shared->promising == rewind->epoch &&
		qdb_shared->target_epoch == 0 && qdb_shared->receiver_epoch == 0;
	if (still)
		qdb_shared->clone.phase = QDB_CLONE_STAGED;
	SpinLockRelease(&qdb_shared->mutex);
	if (!still)
		ereport(ERROR, (errmsg("a newer epoch has begun")));
	if (GetXLogReplayRecPtr(NULL) > rewind->own_end)
		ereport(ERROR, (errmsg("this node has replayed more WAL meanwhile")));
}

static void
log_begin(const QdbRewind *rewind)
{
	ereport(LOG, (errmsg("[failover] Rewinding from %X/%X of timeline %u to the fork at %X/%X of timeline %u",
						 LSN_FORMAT_ARGS(rewind->own_end), rewind->own_timeline,
						 LSN_FORMAT_ARGS(rewind->fork), rewind->fork_timeline),
				  errdetail("Replay will start at %X/%X; " INT64_FORMAT " relations were changed past the fork.",
							LSN_FORMAT_ARGS(rewind->checkpoint.redo),
							(int64) hash_get_num_entries(rewind->relations))));
}

static void
save_lost(QdbRewind *rewind)
{
	rewind->lost.epoch = rewind->epoch;
	rewind->lost.timeline = rewind->own_timeline;
	rewind->lost.start = rewind->fork;
	rewind->lost.end = rewind->own_end;
	rewind->lost.path = rewind->own_path;
	qdb_lost_save(&rewind->lost, false);
}

/* The journal's entry for after the boot. */
static void
add_note(QdbRewind *rewind)
{
	char		text[QDB_REASON_SIZE];

	qdb_lost_describe(&rewind->lost, rewind->fork_timeline, text);
	qdb_stage_text(QDB_REWIND_DIR "/done", text);
	qdb_stage_add_put(rewind->stage, QDB_REWIND_DIR "/done", QDB_REWIND_DONE);
	qdb_rewind_control(rewind);
}

/* After each answer: a relation alone can take long. */
static void
show_fetched(uint64 done, void *arg)
{
	const QdbRewind *rewind = arg;

	qdb_set_progress(QDB_REWIND_FETCH, done, Max(rewind->bytes_total, done));
}

static void
do_rewind(QdbRewind *rewind)
{
	read_own_control(rewind);
	connect_source(rewind);
	qdb_rewind_need(rewind, qdb_fetch_control(rewind->fetch, &rewind->source));
	rewind->stage = qdb_stage_begin(false);
	qdb_stage_mkdir(QDB_REWIND_WAL);
	qdb_rewind_history(rewind);
	qdb_rewind_find_fork(rewind);
	qdb_rewind_find_checkpoint(rewind);
	qdb_rewind_scan(rewind);
	log_begin(rewind);
	qdb_fetch_report(rewind->fetch, show_fetched, rewind);
	qdb_rewind_files(rewind);
	qdb_rewind_wal(rewind);
	check_recovery(rewind);
	save_lost(rewind);
	add_note(rewind);
	hold_still(rewind);
	if (!qdb_rewinds_store(rewind->epoch, qdb_rewinds_load(rewind->epoch) + 1))
		ereport(ERROR, (errcode(ERRCODE_IO_ERROR), errmsg("could not count the rewind")));
	qdb_stage_commit(rewind->stage, rewind->lost.folder);
	ereport(LOG, (errmsg("[failover] The rewind is staged: replay restarts at %X/%X and is consistent at %X/%X",
						 LSN_FORMAT_ARGS(rewind->checkpoint.redo), LSN_FORMAT_ARGS(rewind->min_recovery))));
	/* The crash cycle begins; the plan is applied in it. */
	_exit(2);
}

static void
begin_state(QdbRewind *rewind, const QdbIdentity *self)
{
	rewind->self = *self;
	rewind->state = qdb_copy_state();
	rewind->grant = qdb_current_grant(rewind->state);
	if (rewind->grant == NULL || rewind->grant->holder == self->member || !RecoveryInProgress())
		ereport(ERROR, (errmsg("nobody else holds the seat now")));
	rewind->epoch = rewind->grant->epoch;
}

/* Takes the error that ended the attempt. */
static void
note_failure(const char *reason, int sqlstate)
{
	char		copy[QDB_REASON_SIZE];

	strlcpy(copy, reason, sizeof(copy));
	SpinLockAcquire(&qdb_shared->mutex);
	qdb_shared->rewind.failed++;
	qdb_shared->rewind.useless = sqlstate == ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
	qdb_shared->rewind.unreachable = sqlstate == ERRCODE_CONNECTION_FAILURE;
	memcpy(qdb_shared->rewind.reason, copy, sizeof(copy));
	SpinLockRelease(&qdb_shared->mutex);
	ereport(LOG, (errmsg("[failover] The rewind did not work: %s", copy)));
}

void
qdb_rewind_run(const QdbIdentity *self)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "rewind", ALLOCSET_DEFAULT_SIZES);
	QdbRewind  *rewind;

	MemoryContextSwitchTo(context);
	rewind = palloc0(sizeof(QdbRewind));
	PG_TRY();
	{
		begin_state(rewind, self);
		do_rewind(rewind);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		FlushErrorState();
		note_failure(edata->message != NULL ? edata->message : "unknown error", edata->sqlerrcode);
		if (rewind->fetch != NULL)
			qdb_fetch_close(rewind->fetch);
	}
	PG_END_TRY();
	qdb_set_progress("", 0, 0);
}
