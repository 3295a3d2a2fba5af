/*-------------------------------------------------------------------------
 *
 * torn.c
 *		Segments of a timeline that lack WAL before its fork.
 *
 * Startup prefers a segment of the newest timeline that it knows.  Where that
 * has zeroes before the fork, because it was begun by a node that had less, or
 * a walreceiver was killed in it, startup ends the postmaster.  Such a segment
 * is removed before recovery looks: what it holds past the fork comes again.
 *
 * Before the fork the segments of both timelines are copies of each other, so
 * only one that differs from its parent's is looked at.  The difference alone
 * says nothing: after a rewind it is the parent's that has less.  The records
 * say it.
 *
 * Runs in the postmaster: no ereport(ERROR).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogreader.h"
#include "failover/wal_files.h"

/* Do two files have the same first bytes?  -1: one is not there, or cannot be read. */
static int
same_begin(const char *a, const char *b, uint32 length)
{
	char		x[XLOG_BLCKSZ];
	char		y[XLOG_BLCKSZ];
	int			fa = open(a, O_RDONLY | PG_BINARY | O_CLOEXEC);
	int			fb = open(b, O_RDONLY | PG_BINARY | O_CLOEXEC);
	int			same = fa >= 0 && fb >= 0 ? 1 : -1;

	for (uint32 offset = 0; same == 1 && offset < length; offset += sizeof(x))
	{
		ssize_t		n = Min(sizeof(x), length - offset);

		if (pg_pread(fa, x, n, offset) != n || pg_pread(fb, y, n, offset) != n)
			same = -1;
		else
			same = memcmp(x, y, n) == 0;
	}
	if (fa >= 0)
		close(fa);
	if (fb >= 0)
		close(fb);
	return same;
}

typedef struct OneSegment
{
	int			fd;
	XLogSegNo	segno;
	TimeLineID	timeline;
} OneSegment;

static int
read_page(XLogReaderState *reader, XLogRecPtr page, int wanted, XLogRecPtr target, char *buffer)
{
	OneSegment *segment = reader->private_data;

	if (page / wal_segment_size != segment->segno ||
		pg_pread(segment->fd, buffer, XLOG_BLCKSZ, page % wal_segment_size) != XLOG_BLCKSZ)
		return -1;
	reader->seg.ws_tli = segment->timeline;
	return XLOG_BLCKSZ;
}

static void
close_segment(XLogReaderState *reader)
{
	reader->seg.ws_file = -1;
}

/* Has the page that ends with the byte before the fork a header of its place? */
static bool
page_is_there(int fd, XLogRecPtr fork)
{
	XLogRecPtr	at = (fork - 1) - (fork - 1) % XLOG_BLCKSZ;
	XLogPageHeaderData header;

	return pg_pread(fd, &header, sizeof(header), at % wal_segment_size) == sizeof(header) &&
		header.xlp_magic == XLOG_PAGE_MAGIC && header.xlp_pageaddr == at;
}

/*
 * Do whole records lead up to the fork?  Where none begins before it, the page
 * header has to do.
 */
static bool
reaches_fork(OneSegment *segment, XLogRecPtr fork)
{
	XLogReaderState *reader;
	XLogRecPtr	begin;
	XLogRecPtr	end = InvalidXLogRecPtr;
	char	   *error;

	reader = XLogReaderAllocate(wal_segment_size, NULL,
								XL_ROUTINE(.page_read = read_page,
										   .segment_open = NULL,
										   .segment_close = close_segment),
								segment);
	if (reader == NULL)
		return true;			/* out of memory: nothing is removed */
	XLogSegNoOffsetToRecPtr(segment->segno, 0, wal_segment_size, begin);
	begin = XLogFindNextRecord(reader, begin);
	if (!XLogRecPtrIsInvalid(begin) && begin < fork)
	{
		XLogBeginRead(reader, begin);
		while (end < fork && XLogReadRecord(reader, &error) != NULL)
			end = reader->EndRecPtr;
	}
	XLogReaderFree(reader);
	return end >= fork || (XLogRecPtrIsInvalid(end) && page_is_there(segment->fd, fork));
}

static bool
drop_torn_segment(const char *path, TimeLineID timeline, XLogSegNo segno, bool history, void *arg)
{
	QdbHistory	parsed;
	char		parent[MAXPGPATH];
	OneSegment	segment = {-1, segno, timeline};
	XLogRecPtr	fork = InvalidXLogRecPtr;

	if (history || !qdb_history_read(timeline, &parsed))
		return true;
	if (parsed.nlines > 0)
	{
		fork = parsed.lines[parsed.nlines - 1].end;
		XLogFilePath(parent, parsed.lines[parsed.nlines - 1].timeline, segno, wal_segment_size);
	}
	qdb_history_free(&parsed);
	if (fork == InvalidXLogRecPtr || fork % wal_segment_size == 0 || fork / wal_segment_size != segno ||
		same_begin(path, parent, fork % wal_segment_size) != 0)
		return true;
	segment.fd = open(path, O_RDONLY | PG_BINARY | O_CLOEXEC);
	if (segment.fd < 0)
		return true;
	if (!reaches_fork(&segment, fork))
	{
		ereport(LOG, (errmsg("[failover] removing \"%s\": it does not reach the fork of its timeline at %X/%X",
							 path, LSN_FORMAT_ARGS(fork))));
		(void) qdb_remove_file(path);
	}
	close(segment.fd);
	return true;
}

bool
qdb_drop_torn_segments(void)
{
	return qdb_visit_wal_files(drop_torn_segment, NULL) && qdb_sync_wal_folder();
}
