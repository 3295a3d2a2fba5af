/*-------------------------------------------------------------------------
 *
 * own_wal.c
 *		Read WAL files along a history, as startup does.
 *
 * A segment in which timelines change exists once for each of them; the newest
 * has all of it.  Unlike startup this never reads a timeline past its end.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "failover/own_wal.h"
#include "miscadmin.h"
#include "storage/fd.h"

QdbWalPath *
qdb_wal_path(const char *folder, const QdbHistory *history, TimeLineID tip)
{
	QdbWalPath *path = palloc0(sizeof(QdbWalPath));
	XLogRecPtr	begin = 0;

	path->folder = folder;
	path->system_identifier = GetSystemIdentifier();
	path->fd = -1;
	path->parts = palloc0(sizeof(QdbTimelinePart) * (history->nlines + 1));
	for (int i = 0; i < history->nlines; i++)
	{
		path->parts[i].timeline = history->lines[i].timeline;
		path->parts[i].begin = begin;
		path->parts[i].end = begin = history->lines[i].end;
	}
	path->nparts = history->nlines + 1;
	path->parts[history->nlines].timeline = tip;
	path->parts[history->nlines].begin = begin;
	path->parts[history->nlines].end = PG_UINT64_MAX;
	return path;
}

static bool
open_segment(QdbWalPath *path, XLogSegNo segno)
{
	if (path->fd >= 0 && path->open_segno == segno)
		return true;
	if (path->fd >= 0)
		CloseTransientFile(path->fd);
	path->fd = -1;
	for (int i = path->nparts - 1; i >= 0 && path->fd < 0; i--)
	{
		const QdbTimelinePart *part = &path->parts[i];
		char		name[MAXFNAMELEN];
		char		file[MAXPGPATH];

		if (segno < part->begin / wal_segment_size)
			continue;
		if (part->end != PG_UINT64_MAX && segno > part->end / wal_segment_size)
			break;
		XLogFileName(name, part->timeline, segno, wal_segment_size);
		snprintf(file, sizeof(file), "%s/%s", path->folder, name);
		path->fd = OpenTransientFile(file, O_RDONLY | PG_BINARY);
		path->open_timeline = part->timeline;
		path->open_segno = segno;
	}
	return path->fd >= 0;
}

static int
read_page(XLogReaderState *reader, XLogRecPtr page, int wanted, XLogRecPtr target, char *buffer)
{
	QdbWalPath *path = reader->private_data;

	if (!open_segment(path, page / wal_segment_size) ||
		pg_pread(path->fd, buffer, XLOG_BLCKSZ, page % wal_segment_size) != XLOG_BLCKSZ)
		return -1;
	reader->seg.ws_tli = path->open_timeline;
	return XLOG_BLCKSZ;
}

static void
close_segment(XLogReaderState *reader)
{
	reader->seg.ws_file = -1;
}

XLogReaderState *
qdb_wal_reader(QdbWalPath *path)
{
	XLogReaderState *reader;

	reader = XLogReaderAllocate(wal_segment_size, NULL,
								XL_ROUTINE(.page_read = read_page,
										   .segment_open = NULL,
										   .segment_close = close_segment),
								path);
	if (reader == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	reader->system_identifier = path->system_identifier;
	return reader;
}

void
qdb_wal_reader_free(XLogReaderState *reader)
{
	QdbWalPath *path = reader->private_data;

	if (path->fd >= 0)
		CloseTransientFile(path->fd);
	path->fd = -1;
	XLogReaderFree(reader);
}

XLogRecPtr
qdb_record_start(XLogRecPtr position)
{
	if (position % XLOG_BLCKSZ != 0)
		return position;
	return position + (XLogSegmentOffset(position, wal_segment_size) == 0 ?
					   SizeOfXLogLongPHD : SizeOfXLogShortPHD);
}

TimeLineID
qdb_newest_timeline(TimeLineID from)
{
	TimeLineID	newest = from;
	QdbHistory	history;

	for (TimeLineID probe = from + 1; qdb_history_read(probe, &history) && history.exists; probe++)
	{
		for (int i = 0; i < history.nlines; i++)
		{
			if (history.lines[i].timeline == from)
				newest = probe;
		}
		qdb_history_free(&history);
	}
	return newest;
}

XLogRecPtr
qdb_last_record_end(QdbWalPath *path, XLogRecPtr start, XLogRecPtr limit)
{
	XLogReaderState *reader = qdb_wal_reader(path);
	XLogRecPtr	end = InvalidXLogRecPtr;
	char	   *message;

	XLogBeginRead(reader, start);
	while (XLogReadRecord(reader, &message) != NULL && reader->EndRecPtr <= limit)
	{
		end = reader->EndRecPtr;
		CHECK_FOR_INTERRUPTS();
	}
	qdb_wal_reader_free(reader);
	return end;
}
