/*-------------------------------------------------------------------------
 *
 * walread.c
 *		WAL from the files.
 *
 * Nothing here raises errors: a segment that is gone ends one stream, not the
 * worker.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/timeline.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "storage/fd.h"

#include "wal/streamer.h"

/* The open segment. */
static int	segment_fd = -1;
static TimeLineID segment_timeline = 0; /* that was asked for, not the file's */
static XLogSegNo segment_number = 0;

static void
close_segment(void)
{
	if (segment_fd >= 0)
		close(segment_fd);
	segment_fd = -1;
}

/*
 * Opens the file that has this segment of a timeline.  At a switch the used
 * part of a segment is copied into the new timeline's file and the old file
 * may be missing, so the newest timeline that begins in the segment is tried first.
 */
static bool
open_segment(TimeLineID timeline, XLogSegNo segno, char *why)
{
	const List *history = qdb_seat.epoch != 0 ? qdb_seat.history : qdb_store.history;
	ListCell   *cell;
	char		path[MAXPGPATH];
	char		name[MAXFNAMELEN];

	close_segment();
	foreach(cell, history)
	{
		TimeLineHistoryEntry *entry = (TimeLineHistoryEntry *) lfirst(cell);
		XLogSegNo	first;

		if (entry->tli < timeline)
			break;
		XLByteToSeg(entry->begin, first, wal_segment_size);
		if (entry->tli != timeline && first > segno)
			continue;
		XLogFilePath(path, entry->tli, segno, wal_segment_size);
		segment_fd = BasicOpenFile(path, O_RDONLY | PG_BINARY);
		if (segment_fd >= 0)
		{
			segment_timeline = timeline;
			segment_number = segno;
			return true;
		}
		if (errno != ENOENT)
		{
			snprintf(why, QDB_REASON_SIZE, "could not open file \"%s\": %s", path, strerror(errno));
			return false;
		}
	}
	XLogFileName(name, timeline, segno, wal_segment_size);
	snprintf(why, QDB_REASON_SIZE, "WAL segment %s has been removed; re-clone this node", name);
	return false;
}

bool
qdb_read_wal(TimeLineID timeline, XLogRecPtr start, char *buf, size_t count, char *why)
{
	while (count > 0)
	{
		uint32		offset = XLogSegmentOffset(start, wal_segment_size);
		size_t		part = Min(count, (size_t) wal_segment_size - offset);
		XLogSegNo	segno;
		ssize_t		got;

		XLByteToSeg(start, segno, wal_segment_size);
		if ((segment_fd < 0 || segno != segment_number || timeline != segment_timeline) &&
			!open_segment(timeline, segno, why))
			return false;
		got = pg_pread(segment_fd, buf, part, (off_t) offset);
		if (got <= 0)
		{
			if (got < 0 && errno == EINTR)
				continue;
			snprintf(why, QDB_REASON_SIZE, "could not read WAL at %X/%X: %s", LSN_FORMAT_ARGS(start),
					 got < 0 ? strerror(errno) : "unexpected end of file");
			close_segment();
			return false;
		}
		/* The file may have been recycled under us while we read. */
		if (segno <= XLogGetLastRemovedSegno())
		{
			close_segment();
			snprintf(why, QDB_REASON_SIZE,
					 "WAL at %X/%X has been removed; re-clone this node", LSN_FORMAT_ARGS(start));
			return false;
		}
		start += got;
		buf += got;
		count -= got;
	}
	return true;
}
