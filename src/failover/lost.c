/*-------------------------------------------------------------------------
 *
 * lost.c
 *		Keep WAL that a rewind or a trim throws away, and say what it held.
 *
 * Each of them makes a folder QDB_DIR/lost/NUMBER with the segments from the fork on and
 * a summary.  Old folders go when all together pass quantadb.lost_wal_limit; of WAL longer
 * than that only the summary is kept.
 *
 * Process: resync worker for a rewind, coordinator for a trim.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/heapam_xlog.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "base/lost.h"
#include "common/file_perm.h"
#include "failover/lost.h"
#include "failover/wal_files.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/hsearch.h"
#include "utils/timestamp.h"

#define OPERATION_SIZE		32
#define SUMMARY_RELATIONS	200

typedef struct CountKey
{
	RelFileNode node;
	char		operation[OPERATION_SIZE];
} CountKey;

typedef struct Count
{
	CountKey	key;
	uint64		n;
} Count;

struct QdbLost
{
	uint64		commits;
	TimestampTz first;
	TimestampTz last;
	HTAB	   *counts;
	StringInfoData xids;		/* "xid time" lines */
};

QdbLost *
qdb_lost_begin(void)
{
	QdbLost    *lost = palloc0(sizeof(QdbLost));
	HASHCTL		ctl = {.keysize = sizeof(CountKey),.entrysize = sizeof(Count),.hcxt = CurrentMemoryContext};

	lost->counts = hash_create("lost records", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	initStringInfo(&lost->xids);
	return lost;
}

static void
count_commit(QdbLost *lost, XLogReaderState *record, uint8 operation)
{
	xl_xact_parsed_commit parsed;
	TransactionId xid = XLogRecGetXid(record);

	ParseCommitRecord(XLogRecGetInfo(record), (xl_xact_commit *) XLogRecGetData(record), &parsed);
	if (operation == XLOG_XACT_COMMIT_PREPARED)
		xid = parsed.twophase_xid;
	/* Without an id it has changed nothing that is its own. */
	if (!TransactionIdIsValid(xid))
		return;
	if (lost->commits++ == 0)
		lost->first = parsed.xact_time;
	lost->last = parsed.xact_time;
	appendStringInfo(&lost->xids, "%u %s %X/%X\n", xid, timestamptz_to_str(parsed.xact_time),
					 LSN_FORMAT_ARGS(record->ReadRecPtr));
}

void
qdb_lost_count(QdbLost *lost, XLogReaderState *record)
{
	RmgrId		rmid = XLogRecGetRmid(record);
	uint8		info = XLogRecGetInfo(record) & ~XLR_INFO_MASK;
	CountKey	key;
	const char *operation;
	Count	   *count;
	bool		found;

	if (rmid == RM_XACT_ID && ((info & XLOG_XACT_OPMASK) == XLOG_XACT_COMMIT ||
							   (info & XLOG_XACT_OPMASK) == XLOG_XACT_COMMIT_PREPARED))
		count_commit(lost, record, info & XLOG_XACT_OPMASK);
	memset(&key, 0, sizeof(key));
	if (XLogRecMaxBlockId(record) < 0 ||
		!XLogRecGetBlockTagExtended(record, 0, &key.node, NULL, NULL, NULL))
		return;
	operation = RmgrIdIsValid(rmid) && GetRmgr(rmid).rm_identify != NULL ?
		GetRmgr(rmid).rm_identify(XLogRecGetInfo(record)) : NULL;
	if (operation == NULL)
		operation = "UNKNOWN";
	/* The first row on a page ("+INIT") is a row like others. */
	memcpy(key.operation, operation, Min(strcspn(operation, "+"), sizeof(key.operation) - 1));
	count = hash_search(lost->counts, &key, HASH_ENTER, &found);
	count->n = found ? count->n + 1 : 1;
}

/* "database/relfilenode OPERATION n, ...", the same for all forks' records. */
static char *
describe_counts(QdbLost *lost)
{
	StringInfoData text;
	HASH_SEQ_STATUS scan;
	Count	   *count;
	int			n = 0;

	initStringInfo(&text);
	hash_seq_init(&scan, lost->counts);
	while ((count = hash_seq_search(&scan)) != NULL)
	{
		if (n++ >= SUMMARY_RELATIONS)
		{
			appendStringInfoString(&text, ", ...");
			hash_seq_term(&scan);
			break;
		}
		appendStringInfo(&text, "%s%u/%u %s " UINT64_FORMAT, n > 1 ? ", " : "",
						 count->key.node.dbNode, count->key.node.relNode, count->key.operation, count->n);
	}
	return text.data;
}

static void
copy_segment(const char *from, const char *to, bool sync)
{
	char	   *buf = palloc(wal_segment_size);
	int			in = OpenTransientFile(from, O_RDONLY | PG_BINARY);
	int			out = OpenTransientFile(to, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY);
	ssize_t		n = in >= 0 ? read(in, buf, wal_segment_size) : -1;

	errno = errno != 0 ? errno : EIO;
	if (n < 0 || out < 0 || write(out, buf, n) != n || (sync && pg_fsync(out) != 0))
		ereport(ERROR, (errcode_for_file_access(),
						errmsg("could not save WAL file \"%s\": %m", from)));
	CloseTransientFile(in);
	CloseTransientFile(out);
	pfree(buf);
}

/* Of the timeline that owns each segment from the start on, as the scan has read them. */
static uint64
copy_segments(const QdbLostWal *wal, XLogSegNo last, const char *folder, bool sync)
{
	uint64		saved = 0;

	for (XLogSegNo segno = wal->start / wal_segment_size; segno <= last; segno++)
	{
		for (int i = wal->path->nparts - 1; i >= 0; i--)
		{
			char		name[MAXFNAMELEN];
			char		from[MAXPGPATH];
			char		to[MAXPGPATH];

			XLogFileName(name, wal->path->parts[i].timeline, segno, wal_segment_size);
			snprintf(from, sizeof(from), XLOGDIR "/%s", name);
			if (!qdb_file_exists(from))
				continue;
			snprintf(to, sizeof(to), "%s/%s", folder, name);
			copy_segment(from, to, sync);
			saved += wal_segment_size;
			break;
		}
		CHECK_FOR_INTERRUPTS();
	}
	return saved;
}

/* Removes the oldest folders until as much as may be kept is free. */
static uint64
make_room(uint64 wanted, uint64 limit)
{
	uint64		next = 1;
	int			n;
	QdbLostEntry *entries = qdb_lost_list(&n);
	uint64		used = wanted;

	for (int i = n - 1; i >= 0; i--)
	{
		char		path[MAXPGPATH];

		next = Max(next, entries[i].number + 1);
		used += entries[i].saved_bytes;
		if (used <= limit || entries[i].saved_bytes == 0)
			continue;
		snprintf(path, sizeof(path), "%s/" UINT64_FORMAT, QDB_LOST_DIR, entries[i].number);
		ereport(LOG, (errmsg("[failover] removing \"%s\", past quantadb.lost_wal_limit", path)));
		(void) rmtree(path, true);
	}
	return next;
}

/*
 * qdb_lost_save
 *		Write the summary of this WAL and keep what may be kept of it.
 *
 * With move only the segment of the start is copied, durably: the caller renames the later
 * ones into the folder, which it finds in wal->folder; empty where all is too long to keep.
 * Without it all is copied, and the caller makes the folder durable together with its plan.
 */
void
qdb_lost_save(QdbLostWal *wal, bool move)
{
	const QdbLost *lost = wal->lost;
	uint64		limit = (uint64) qdb_lost_wal_limit_mb * 1024 * 1024;
	XLogSegNo	first = wal->start / wal_segment_size;
	XLogSegNo	last = (wal->end - 1) / wal_segment_size;
	uint64		length = (last - first + 1) * wal_segment_size;
	QdbLostEntry entry = {0};
	char		path[MAXPGPATH];

	entry.number = make_room(Min(length, limit), limit);
	entry.time_us = qdb_unix_us();
	entry.epoch = wal->epoch;
	entry.timeline = wal->timeline;
	entry.start = wal->start;
	entry.end = wal->end;
	entry.transactions = lost->commits;
	entry.first_commit = lost->first;
	entry.last_commit = lost->last;
	snprintf(path, sizeof(path), "%s/" UINT64_FORMAT, QDB_LOST_DIR, entry.number);
	if (pg_mkdir_p(pstrdup(path), pg_dir_create_mode) != 0)
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not create directory \"%s\": %m", path)));
	wal->folder[0] = '\0';
	if (length <= limit)
	{
		entry.saved_bytes = copy_segments(wal, move ? first : last, path, move);
		if (move)
			entry.saved_bytes = length;
		strlcpy(wal->folder, path, sizeof(wal->folder));
	}
	if (!qdb_place_file(psprintf("%s/transactions", path), lost->xids.data) ||
		!qdb_lost_write(&entry, describe_counts(wal->lost)) || !qdb_fsync_path(QDB_LOST_DIR, true))
		ereport(ERROR, (errcode(ERRCODE_IO_ERROR), errmsg("could not describe the lost WAL in \"%s\"", path)));
}

void
qdb_lost_describe(const QdbLostWal *wal, TimeLineID timeline, char *text)
{
	snprintf(text, QDB_REASON_SIZE,
			 "went back to %X/%X of timeline %u; discarded %llu bytes of WAL with %llu commits, see quantadb_lost_writes there",
			 LSN_FORMAT_ARGS(wal->start), timeline, (unsigned long long) (wal->end - wal->start),
			 (unsigned long long) wal->lost->commits);
}
