/*-------------------------------------------------------------------------
 *
 * walbatch.c
 *		WAL from the files, packed into WAL frames.
 *
 * One batch is kept: replicas that stand at the same position, the usual case,
 * get the same bytes, read and packed once.  What is flushed never changes
 * on its timeline, so a kept batch stays right.
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
#include "port/pg_bswap.h"
#include "storage/fd.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "wal/streamer.h"

#define MESSAGE_WAL_BYTES		(XLOG_BLCKSZ * 16)	/* walsender's
													 * MAX_SEND_SIZE */
#define WAL_HEADER_BYTES		25	/* 'w', start, end, time */
#define LENGTH_BYTES			4
#define BATCH_MAX_BYTES			(1024 * 1024)	/* fits a WAL frame with its
												 * headers */

static uint8 *batch_buffer = NULL;
static size_t batch_buffer_size = 0;
static TimeLineID kept_timeline = 0;
static XLogRecPtr kept_start = InvalidXLogRecPtr;
static QdbWalBatch kept;

/* The open segment. */
static int	segment_fd = -1;
static TimeLineID segment_timeline = 0; /* that was asked for, not the file's */
static XLogSegNo segment_number = 0;

size_t
qdb_batch_bytes(void)
{
	size_t		bytes = (size_t) qdb_replication_buffer_kb * 1024;

	return Max(Min(bytes, BATCH_MAX_BYTES), MESSAGE_WAL_BYTES);
}

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
	ListCell   *cell;
	char		path[MAXPGPATH];
	char		name[MAXFNAMELEN];

	close_segment();
	foreach(cell, qdb_seat.history)
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

static bool
read_wal(TimeLineID timeline, XLogRecPtr start, char *buf, size_t count, char *why)
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

/* walsender's integers are big-endian. */
static uint8 *
put_int64(uint8 *p, uint64 v)
{
	v = pg_hton64(v);
	memcpy(p, &v, sizeof(v));
	return p + sizeof(v);
}

static uint8 *
put_length(uint8 *p, uint32 length)
{
	QdbWriter	w = {.buf = p,.size = LENGTH_BYTES};

	qdb_put_u32(&w, length);
	return p + LENGTH_BYTES;
}

uint32
qdb_put_keepalive(uint8 *buf, size_t size, XLogRecPtr end, bool reply)
{
	uint8	   *p = put_length(buf, 18);

	Assert(size >= LENGTH_BYTES + 18);
	*p++ = 'k';
	p = put_int64(p, end);
	p = put_int64(p, GetCurrentTimestamp());
	*p++ = reply ? 1 : 0;
	return p - buf;
}

/* Where a piece that starts here may end: upto, or else a page boundary. */
static XLogRecPtr
cut_piece(XLogRecPtr start, XLogRecPtr upto, size_t bytes)
{
	XLogRecPtr	end = start + bytes;

	if (upto <= end)
		return upto;
	return end - end % XLOG_BLCKSZ;
}

static bool
reserve_buffer(size_t wal_bytes)
{
	size_t		messages = wal_bytes / (MESSAGE_WAL_BYTES - XLOG_BLCKSZ) + 2;
	size_t		size = wal_bytes + messages * (LENGTH_BYTES + WAL_HEADER_BYTES);

	if (batch_buffer_size >= size)
		return true;
	if (batch_buffer != NULL)
		pfree(batch_buffer);
	batch_buffer_size = 0;
	batch_buffer = MemoryContextAllocExtended(TopMemoryContext, size, MCXT_ALLOC_NO_OOM);
	if (batch_buffer == NULL)
		return false;
	batch_buffer_size = size;
	return true;
}

bool
qdb_read_wal_batch(TimeLineID timeline, XLogRecPtr start, XLogRecPtr upto,
				   QdbWalBatch * batch, char *why)
{
	XLogRecPtr	end = cut_piece(start, upto, qdb_batch_bytes());
	XLogRecPtr	pos = start;
	uint8	   *p;

	if (kept_timeline == timeline && kept_start == start && kept.end > start && kept.end <= upto)
	{
		*batch = kept;
		return true;
	}
	kept_timeline = 0;
	if (!reserve_buffer(qdb_batch_bytes()))
	{
		strlcpy(why, "out of memory", QDB_REASON_SIZE);
		return false;
	}
	p = batch_buffer;
	while (pos < end)
	{
		XLogRecPtr	next = cut_piece(pos, end, MESSAGE_WAL_BYTES);

		p = put_length(p, WAL_HEADER_BYTES + (uint32) (next - pos));
		*p++ = 'w';
		p = put_int64(p, pos);
		p = put_int64(p, upto);
		p = put_int64(p, GetCurrentTimestamp());
		if (!read_wal(timeline, pos, (char *) p, next - pos, why))
			return false;
		p += next - pos;
		pos = next;
	}
	kept.payload = batch_buffer;
	kept.length = p - batch_buffer;
	kept.end = end;
	kept_timeline = timeline;
	kept_start = start;
	*batch = kept;
	return true;
}
