/*-------------------------------------------------------------------------
 *
 * rewind_scan.c
 *		What this node's own WAL past the fork has changed.
 *
 * Only pages named by records past the fork have to be fetched.  One that was changed
 * before it, and not after, can differ from the common past in nothing but hint bits of
 * transactions that committed past the fork: either a record past the fork says so
 * (wal_log_hints), or the page was dirty already, and then replay from the checkpoint restores
 * it from its image.  On a node that was a standby a restartpoint may write such a page
 * later, so there the start of replay goes back before all transactions that were in
 * progress at the control file's redo point.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogrecovery.h"
#include "catalog/storage_xlog.h"
#include "commands/dbcommands_xlog.h"
#include "failover/rewind.h"
#include "miscadmin.h"

#define SHOW_BYTES	(1024 * 1024)

static QdbWalPath *
path_of(TimeLineID timeline)
{
	QdbHistory	history;
	QdbWalPath *path;

	if (!qdb_history_read(timeline, &history))
		qdb_rewind_impossible("the history of timeline %u cannot be read", timeline);
	path = qdb_wal_path(XLOGDIR, &history, timeline);
	qdb_history_free(&history);
	return path;
}

void
qdb_rewind_find_fork(QdbRewind *rewind)
{
	QdbWalPath *source = qdb_wal_path(XLOGDIR, &rewind->history, rewind->welcome.timeline);
	TimeLineID	replayed;

	(void) GetXLogReplayRecPtr(&replayed);
	rewind->own_timeline = qdb_newest_timeline(replayed);
	rewind->own_path = path_of(rewind->own_timeline);
	if (!qdb_rewind_fork(rewind->own_path->parts, rewind->own_path->nparts,
						 source->parts, source->nparts, &rewind->fork_timeline, &rewind->fork))
		qdb_rewind_impossible("timeline %u has nothing in common with the primary's timeline %u",
							  rewind->own_timeline, rewind->welcome.timeline);
	/* I10: the fork is one that the promised epoch's history names. */
	if (rewind->fork_timeline != rewind->welcome.timeline)
	{
		XLogRecPtr	limit;

		if (rewind->fork_timeline >= rewind->state->grants[0].timeline &&
			(!qdb_history_limit(rewind->state, rewind->grant, rewind->fork_timeline, &limit) ||
			 limit < rewind->fork))
			qdb_rewind_impossible("the fork at %X/%X of timeline %u is not in the history of epoch "
								  UINT64_FORMAT, LSN_FORMAT_ARGS(rewind->fork),
								  rewind->fork_timeline, rewind->epoch);
	}
}

/* The greatest transaction id with these low bits that is before next. */
static uint64
full_xid(TransactionId xid, FullTransactionId next)
{
	uint64		epoch = EpochFromFullTransactionId(next);

	if (xid > XidFromFullTransactionId(next) && epoch > 0)
		epoch--;
	return epoch << 32 | xid;
}

/* Did this node write the WAL past the fork itself, as primary? */
static bool
was_primary(const QdbRewind *rewind)
{
	TimeLineID	timeline = rewind->own_timeline;
	const QdbGrant *grant;

	for (int i = 0; i < rewind->own_path->nparts; i++)
	{
		if (rewind->own_path->parts[i].end > rewind->fork)
		{
			timeline = rewind->own_path->parts[i].timeline;
			break;
		}
	}
	grant = qdb_grant_of_timeline(rewind->state, timeline);
	return grant != NULL && grant->holder == rewind->self.member &&
		timeline == rewind->own_timeline;
}

/* A checkpoint record that replay may start at? */
static bool
take_checkpoint(QdbRewind *rewind, XLogReaderState *reader, const QdbRewindLimits *limits)
{
	uint8		info = XLogRecGetInfo(reader) & ~XLR_INFO_MASK;
	QdbCheckpointView view;
	CheckPoint	checkpoint;

	if (XLogRecGetRmid(reader) != RM_XLOG_ID ||
		(info != XLOG_CHECKPOINT_SHUTDOWN && info != XLOG_CHECKPOINT_ONLINE) ||
		XLogRecGetDataLen(reader) < sizeof(checkpoint))
		return false;
	memcpy(&checkpoint, XLogRecGetData(reader), sizeof(checkpoint));
	view.end = reader->EndRecPtr;
	view.redo = checkpoint.redo;
	view.full_page_writes = checkpoint.fullPageWrites;
	view.next_xid = U64FromFullTransactionId(checkpoint.nextXid);
	if (!qdb_rewind_may_start(&view, limits))
		return false;
	rewind->checkpoint = checkpoint;
	rewind->checkpoint_lsn = reader->ReadRecPtr;
	return true;
}

/* Walks back from the newest record that could do. */
void
qdb_rewind_find_checkpoint(QdbRewind *rewind)
{
	XLogReaderState *reader = qdb_wal_reader(rewind->own_path);
	QdbRewindLimits limits = {
		.fork = rewind->fork,
		.own_redo = rewind->own.checkPointCopy.redo,
		.source_redo = rewind->source.checkPointCopy.redo
	};
	XLogRecPtr	position = rewind->own.checkPoint;
	char	   *message;

	if (!was_primary(rewind) && TransactionIdIsNormal(rewind->own.checkPointCopy.oldestActiveXid))
		limits.oldest_xid = full_xid(rewind->own.checkPointCopy.oldestActiveXid,
									 rewind->own.checkPointCopy.nextXid);
	if (position >= rewind->fork)
		position = qdb_record_start(rewind->fork);
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		XLogBeginRead(reader, position);
		if (XLogReadRecord(reader, &message) == NULL)
			qdb_rewind_impossible("WAL at %X/%X, before the fork at %X/%X, is not there any more",
								  LSN_FORMAT_ARGS(position), LSN_FORMAT_ARGS(rewind->fork));
		if (take_checkpoint(rewind, reader, &limits))
			break;
		position = XLogRecGetPrev(reader);
		if (position == InvalidXLogRecPtr)
			qdb_rewind_impossible("no checkpoint before the fork at %X/%X is left",
								  LSN_FORMAT_ARGS(rewind->fork));
	}
	XLogBeginRead(reader, rewind->checkpoint.redo);
	if (XLogReadRecord(reader, &message) == NULL)
		qdb_rewind_impossible("WAL at the redo point %X/%X is not there any more",
							  LSN_FORMAT_ARGS(rewind->checkpoint.redo));
	qdb_wal_reader_free(reader);
}

/* ---- the map ---- */

static QdbDivergedRelation *
note_relation(QdbRewind *rewind, const RelFileNode *node)
{
	bool		found;
	QdbDivergedRelation *relation = hash_search(rewind->relations, node, HASH_ENTER, &found);

	if (!found)
	{
		relation->recreated = false;
		relation->cut = InvalidBlockNumber;
	}
	return relation;
}

static void
note_block(QdbRewind *rewind, const RelFileNode *node, BlockNumber block)
{
	QdbSegmentKey key;
	QdbDivergedSegment *segment;
	uint32		bit = block % RELSEG_SIZE;
	bool		found;

	memset(&key, 0, sizeof(key));
	key.node = *node;
	key.segment = block / RELSEG_SIZE;
	segment = hash_search(rewind->segments, &key, HASH_ENTER, &found);
	if (!found)
	{
		segment->bits = palloc0(RELSEG_SIZE / 8);
		segment->nblocks = 0;
	}
	if ((segment->bits[bit / 8] & (1 << bit % 8)) == 0)
		segment->nblocks++;
	segment->bits[bit / 8] |= 1 << bit % 8;
}

static void
note_database(QdbRewind *rewind, Oid tablespace, Oid database)
{
	QdbDatabaseKey key = {tablespace, database};

	(void) hash_search(rewind->databases, &key, HASH_ENTER, NULL);
}

/* Replay may remove them until the end: they are fetched, whatever is here now. */
static void
note_dropped(QdbRewind *rewind, const RelFileNode *nodes, int n)
{
	for (int i = 0; i < n; i++)
		note_relation(rewind, &nodes[i])->recreated = true;
}

static void
note_end_of_transaction(QdbRewind *rewind, XLogReaderState *record)
{
	uint8		info = XLogRecGetInfo(record);
	uint8		kind = info & XLOG_XACT_OPMASK;

	if (kind == XLOG_XACT_COMMIT || kind == XLOG_XACT_COMMIT_PREPARED)
	{
		xl_xact_parsed_commit commit;

		ParseCommitRecord(info, (xl_xact_commit *) XLogRecGetData(record), &commit);
		note_dropped(rewind, commit.xnodes, commit.nrels);
	}
	else if (kind == XLOG_XACT_ABORT || kind == XLOG_XACT_ABORT_PREPARED)
	{
		xl_xact_parsed_abort ended;

		ParseAbortRecord(info, (xl_xact_abort *) XLogRecGetData(record), &ended);
		note_dropped(rewind, ended.xnodes, ended.nrels);
	}
}

/* Records that change files otherwise than by the blocks that they name. */
static void
note_special(QdbRewind *rewind, XLogReaderState *record)
{
	RmgrId		rmid = XLogRecGetRmid(record);
	uint8		info = XLogRecGetInfo(record) & ~XLR_INFO_MASK;
	char	   *data = XLogRecGetData(record);

	if (rmid == RM_SMGR_ID && info == XLOG_SMGR_CREATE)
	{
		xl_smgr_create *create = (xl_smgr_create *) data;

		if (create->forkNum == MAIN_FORKNUM)
			note_relation(rewind, &create->rnode)->recreated = true;
		else
			(void) note_relation(rewind, &create->rnode);
	}
	else if (rmid == RM_SMGR_ID && info == XLOG_SMGR_TRUNCATE)
	{
		xl_smgr_truncate *cut = (xl_smgr_truncate *) data;
		QdbDivergedRelation *relation = note_relation(rewind, &cut->rnode);

		if ((cut->flags & SMGR_TRUNCATE_HEAP) != 0)
			relation->cut = Min(relation->cut, cut->blkno);
	}
	else if (rmid == RM_DBASE_ID && info == XLOG_DBASE_CREATE_FILE_COPY)
	{
		xl_dbase_create_file_copy_rec *create = (xl_dbase_create_file_copy_rec *) data;

		note_database(rewind, create->tablespace_id, create->db_id);
	}
	else if (rmid == RM_DBASE_ID && info == XLOG_DBASE_CREATE_WAL_LOG)
	{
		xl_dbase_create_wal_log_rec *create = (xl_dbase_create_wal_log_rec *) data;

		note_database(rewind, create->tablespace_id, create->db_id);
	}
	else if (rmid == RM_DBASE_ID && info == XLOG_DBASE_DROP)
	{
		xl_dbase_drop_rec *drop = (xl_dbase_drop_rec *) data;

		for (int i = 0; i < drop->ntablespaces; i++)
			note_database(rewind, drop->tablespace_ids[i], drop->db_id);
	}
	else if (rmid == RM_XACT_ID)
		note_end_of_transaction(rewind, record);
	else if (rmid == RM_XLOG_ID && info == XLOG_FPW_CHANGE)
	{
		bool		on;

		memcpy(&on, data, sizeof(on));
		if (!on)
			qdb_rewind_impossible("full_page_writes was off past the fork");
	}
	else if (rmid != RM_DBASE_ID && rmid != RM_SMGR_ID && rmid != RM_XACT_ID &&
			 (XLogRecGetInfo(record) & XLR_SPECIAL_REL_UPDATE) != 0)
		qdb_rewind_impossible("the WAL record at %X/%X changes files in a way that is not known",
							  LSN_FORMAT_ARGS(record->ReadRecPtr));
}

static void
note_blocks(QdbRewind *rewind, XLogReaderState *record)
{
	for (int id = 0; id <= XLogRecMaxBlockId(record); id++)
	{
		RelFileNode node;
		ForkNumber	fork;
		BlockNumber block;

		if (!XLogRecGetBlockTagExtended(record, id, &node, &fork, &block, NULL))
			continue;
		(void) note_relation(rewind, &node);
		if (fork == MAIN_FORKNUM)
			note_block(rewind, &node, block);
	}
}

static HTAB *
make_table(const char *name, Size key, Size entry)
{
	HASHCTL		ctl = {.keysize = key,.entrysize = entry,.hcxt = CurrentMemoryContext};

	return hash_create(name, 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* How much of it is read, of what startup has replayed. */
static void
show_scanned(const QdbRewind *rewind)
{
	XLogRecPtr	replayed = GetXLogReplayRecPtr(NULL);
	uint64		total = replayed > rewind->fork ? replayed - rewind->fork : 0;
	uint64		done = rewind->own_end - rewind->fork;

	qdb_set_progress(QDB_REWIND_SCAN, done, Max(done, total));
}

/* From the fork to the true end: startup may still replay what it has not yet. */
void
qdb_rewind_scan(QdbRewind *rewind)
{
	XLogReaderState *reader = qdb_wal_reader(rewind->own_path);
	XLogRecPtr	shown = rewind->fork;
	char	   *message;

	rewind->relations = make_table("diverged relations", sizeof(RelFileNode), sizeof(QdbDivergedRelation));
	rewind->segments = make_table("diverged blocks", sizeof(QdbSegmentKey), sizeof(QdbDivergedSegment));
	rewind->databases = make_table("new databases", sizeof(QdbDatabaseKey), sizeof(QdbDatabaseKey));
	rewind->lost.lost = qdb_lost_begin();
	rewind->own_end = rewind->fork;
	XLogBeginRead(reader, qdb_record_start(rewind->fork));
	while (XLogReadRecord(reader, &message) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		note_special(rewind, reader);
		note_blocks(rewind, reader);
		qdb_lost_count(rewind->lost.lost, reader);
		rewind->own_end = reader->EndRecPtr;
		if (rewind->own_end - shown >= SHOW_BYTES)
		{
			shown = rewind->own_end;
			show_scanned(rewind);
		}
	}
	qdb_wal_reader_free(reader);
	if (rewind->own_end < GetXLogReplayRecPtr(NULL))
		qdb_rewind_impossible("this node has replayed up to %X/%X, and its WAL can be read up to %X/%X only",
							  LSN_FORMAT_ARGS(GetXLogReplayRecPtr(NULL)), LSN_FORMAT_ARGS(rewind->own_end));
}
