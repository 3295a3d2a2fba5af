/*-------------------------------------------------------------------------
 *
 * archive.h
 *		What may go into the cluster's WAL archive, and when.
 *
 * The archive is one for all members.  Only the seat's holder writes to it, its gate
 * open and its lease alive, and nothing but WAL that a quorum has: so whatever lies there is
 * in the history of every later primary, and two primaries write the same bytes under
 * the same name.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CORE_ARCHIVE_H
#define QDB_CORE_ARCHIVE_H

#include "core/state.h"

typedef enum QdbArchiveKind
{
	QDB_ARCHIVE_SEGMENT,
	QDB_ARCHIVE_PARTIAL,		/* last segment of a timeline, up to its end */
	QDB_ARCHIVE_HISTORY,
	QDB_ARCHIVE_LABEL			/* of a base backup */
} QdbArchiveKind;

typedef struct QdbArchiveFile
{
	QdbArchiveKind kind;
	uint32_t	timeline;
	uint64_t	begin;			/* LSNs; of segments and labels */
	uint64_t	end;
	uint64_t	history_end;	/* of its timeline in this server's own
								 * history, 0: not in it; where
								 * qdb_archive_asks_history */
} QdbArchiveFile;

typedef struct QdbArchiveView
{
	uint64_t	open_epoch;		/* of this boot's seat; 0: gate closed, or no
								 * live lease */
	uint64_t	quorum_epoch;
	uint64_t	quorum_lsn;
	uint64_t	archived;		/* all segments that end up to here are there */
} QdbArchiveView;

typedef enum QdbArchiveVerdict
{
	QDB_ARCHIVE_WAIT,			/* not now, or not by this node */
	QDB_ARCHIVE_NOW,
	QDB_ARCHIVE_NEVER			/* it is there, or was taken back */
} QdbArchiveVerdict;

/* Reads a name as in pg_wal/archive_status; false: nothing that is archived. */
extern bool qdb_archive_file_parse(const char *name, uint64_t segment_size, QdbArchiveFile *file);

/*
 * The state keeps the newest grants only.  When it may have dropped some, a timeline that is
 * older than all of them need not be from before the cluster: the server's own history says
 * how far it counts, or that it leads nowhere.
 */
extern bool qdb_archive_asks_history(const QdbState *state, const QdbArchiveFile *file);

extern QdbArchiveVerdict qdb_judge_archive(const QdbState *state, const QdbArchiveView *view,
										   const QdbArchiveFile *file);

/*
 * Numbers below a timeline that lead nowhere, since no holder has opened them: a
 * recovery that looks for the newest timeline stops at the first missing history file.
 */
extern bool qdb_archive_is_gap(const QdbState *state, uint32_t timeline, uint32_t number);

#endif							/* QDB_CORE_ARCHIVE_H */
