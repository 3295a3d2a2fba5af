/*-------------------------------------------------------------------------
 *
 * wal_files.h
 *		Files below pg_wal and signal files, touched without ereport(ERROR).
 *
 * All functions report failure by their result after a LOG line, so they may
 * run in the postmaster's crash cycle and below library callbacks.  The
 * current directory is the data directory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_WAL_FILES_H
#define QDB_WAL_FILES_H

#include "postgres.h"

#include "access/xlogdefs.h"
#include "base/base.h"
#include "core/state.h"

/* A parsed history file: entries ascending, the tip itself has none. */
typedef struct QdbHistoryLine
{
	TimeLineID	timeline;
	XLogRecPtr	end;			/* switch point to the next */
} QdbHistoryLine;

typedef struct QdbHistory
{
	bool		exists;
	bool		placeholder;
	int			nlines;
	QdbHistoryLine *lines;		/* malloc'd */
} QdbHistory;

extern bool qdb_fsync_path(const char *path, bool is_directory);

/* Create or replace atomically, durable on return. */
extern bool qdb_place_file(const char *path, const char *content);

/*
 * A segment or history file leaves pg_wal; the caller fsyncs that directory.  To unlink one of
 * 16 MB takes milliseconds, of which a failover would wait for as many as wait to be
 * used again, so they go to QDB_DISCARDED_DIR, and the resync worker removes that.  A missing
 * file is fine.
 */
extern bool qdb_discard_wal(const char *path);

/* Unlink; the caller fsyncs the directory.  A missing file is fine. */
extern bool qdb_remove_file(const char *path);

/*
 * Makes the names in pg_wal durable: whatever qdb_remove_file removed, or somebody renamed
 * and noted, since the last time this succeeded in this process.
 */
extern bool qdb_sync_wal_folder(void);
extern void qdb_note_wal_folder(void);

/* Copies a segment with zeroes from this offset on; sync: durable on return. */
extern bool qdb_copy_cut(const char *from, const char *to, uint32 keep, bool sync);
extern bool qdb_file_exists(const char *path);

/* False: unreadable or malformed, logged.  A missing file is true, !exists. */
extern bool qdb_history_read(TimeLineID timeline, QdbHistory *history);
extern bool qdb_history_read_at(const char *path, QdbHistory *history);
extern void qdb_history_free(QdbHistory *history);

/* Timeline that owns the byte before position in the history of tip. */
extern TimeLineID qdb_history_owner(const QdbHistory *history, TimeLineID tip, XLogRecPtr position);

/* Does the history file of the grant's timeline say what the grant says? */
extern bool qdb_history_fits(const QdbGrant *grant, char *why);

/* Calls visit for each segment (history false) and history file in pg_wal. */
typedef bool (*QdbWalFileVisit) (const char *path, TimeLineID timeline, XLogSegNo segno,
								 bool history, void *arg);
extern bool qdb_visit_wal_files(QdbWalFileVisit visit, void *arg);

/*
 * Removes the placeholders above the newest real history file.  Those below one stay:
 * findNewestTimeLine stops at the first gap, so without them a restarted server would
 * not see its own newest timeline.
 */
extern bool qdb_sweep_placeholders(void);

/*
 * Removes the first segments of timelines that do not reach their fork.  A walreceiver that
 * dies while it begins a timeline leaves one; recovery prefers it to the old timeline's,
 * and ends the postmaster where it stops.  No byte of the new timeline is in it.
 */
extern bool qdb_drop_torn_segments(void);

/* Creates an empty file, if it is not there. */
extern bool qdb_touch(const char *path);

/* standby.signal is there, and will be after the machine's death (I15). */
extern bool qdb_secure_boot(void);

#endif							/* QDB_WAL_FILES_H */
