/*-------------------------------------------------------------------------
 *
 * walbatch.c
 *		WAL packed into frames that all streams share.
 *
 * A frame is read, compressed and encoded once and then sent by every stream
 * that comes to its start.  Frames end at multiples of CHUNK_BYTES, so streams
 * that catch up from different positions soon ask for the same ones.  What is
 * flushed never changes on its timeline, so a kept frame stays right.
 *
 * Kept frames take at most quantadb.replication_buffer.  The oldest go first,
 * but never one that a stream has sent a part of: a slow replica holds one
 * frame, and nobody waits for it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "port/pg_bswap.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "wal/compress.h"
#include "wal/streamer.h"

#define CHUNK_BYTES				QDB_WAL_CHUNK_BYTES
#define MAX_FRAMES				256
#define WAL_HEADER_BYTES		25	/* 'w', start, end, time */
#define KEEPALIVE_BYTES			18
#define LENGTH_BYTES			4

/* Less than this is sent as it is: there is little to gain, and a commit waits. */
#define COMPRESS_FROM_BYTES		1024

#define PLAIN_OFFSET			(QDB_FRAME_HEADER_SIZE + QDB_WAL_PREFIX_BYTES)
#define PLAIN_SIZE				(PLAIN_OFFSET + QDB_WAL_RAW_MAX)

static QdbSharedFrame *frames[MAX_FRAMES];	/* oldest first */
static int	nframes = 0;
static size_t kept_bytes = 0;

static uint8 *plain = NULL;		/* one frame is built here, as it is */

/* walsender's integers are big-endian. */
static uint8 *
put_int64(uint8 *p, uint64 v)
{
	v = pg_hton64(v);
	memcpy(p, &v, sizeof(v));
	return p + sizeof(v);
}

static uint8 *
put_u32(uint8 *p, uint32 v)
{
	QdbWriter	w = {.buf = p,.size = sizeof(v)};

	qdb_put_u32(&w, v);
	return p + sizeof(v);
}

/* What precedes the messages in a WAL frame's payload. */
static uint8 *
put_prefix(uint8 *p, QdbCodec codec, uint32 raw_length)
{
	*p++ = qdb_apply_is_wanted() ? QDB_WAL_APPLY_WANTED : 0;
	*p++ = (uint8) codec;
	return put_u32(p, raw_length);
}

uint32
qdb_put_keepalive(uint8 *buf, size_t size, XLogRecPtr end, bool reply)
{
	uint8	   *p = put_prefix(buf, QDB_CODEC_NONE, LENGTH_BYTES + KEEPALIVE_BYTES);

	Assert(size >= QDB_WAL_PREFIX_BYTES + LENGTH_BYTES + KEEPALIVE_BYTES);
	p = put_u32(p, KEEPALIVE_BYTES);
	*p++ = 'k';
	p = put_int64(p, end);
	p = put_int64(p, GetCurrentTimestamp());
	*p++ = reply ? 1 : 0;
	return p - buf;
}

static void
drop_frame(int i)
{
	kept_bytes -= GetMemoryChunkSpace(frames[i]);
	pfree(frames[i]);
	memmove(&frames[i], &frames[i + 1], sizeof(frames[0]) * (nframes - i - 1));
	nframes--;
}

/* Room for one more; false only when streams hold all that there are. */
static bool
make_room(size_t length)
{
	size_t		limit = (size_t) qdb_replication_buffer_kb * 1024;

	for (int i = 0; i < nframes && (kept_bytes + length > limit || nframes == MAX_FRAMES);)
	{
		if (frames[i]->refs == 0)
			drop_frame(i);
		else
			i++;
	}
	return nframes < MAX_FRAMES;
}

static bool
prepare_buffers(void)
{
	if (plain == NULL)
		plain = MemoryContextAllocExtended(TopMemoryContext, PLAIN_SIZE, MCXT_ALLOC_NO_OOM);
	return plain != NULL;
}

/* How much of compressed messages is worth it; 0: nothing. */
static uint32
packed_size(uint32 raw_length)
{
	if (qdb_replication_compression == QDB_CODEC_NONE || raw_length < COMPRESS_FROM_BYTES)
		return 0;
	return raw_length - raw_length / 8;
}

/*
 * Memory for a frame with so many bytes of messages, the room for which is made before.
 * NULL: there is none.
 */
static QdbSharedFrame *
new_frame(uint32 size)
{
	Size		bytes = sizeof(QdbSharedFrame) + PLAIN_OFFSET + size;

	if (!make_room(bytes))
		return NULL;
	return MemoryContextAllocExtended(TopMemoryContext, bytes, MCXT_ALLOC_NO_OOM);
}

/* Compresses the messages in plain into a frame; NULL: not worth it, or no memory. */
static QdbSharedFrame *
pack(uint32 raw_length)
{
	QdbCodec	codec = (QdbCodec) qdb_replication_compression;
	uint32		size = packed_size(raw_length);
	QdbSharedFrame *frame = size > 0 ? new_frame(size) : NULL;
	QdbSharedFrame *smaller;
	size_t		n;

	if (frame == NULL)
		return NULL;
	n = qdb_compress(codec, plain + PLAIN_OFFSET, raw_length, frame->bytes + PLAIN_OFFSET, size);
	if (n == 0)
	{
		pfree(frame);
		return NULL;
	}
	put_prefix(frame->bytes + QDB_FRAME_HEADER_SIZE, codec, raw_length);
	frame->length = PLAIN_OFFSET + (uint32) n;
	smaller = MemoryContextAllocExtended(TopMemoryContext, sizeof(QdbSharedFrame) + frame->length, MCXT_ALLOC_NO_OOM);
	if (smaller != NULL)
	{
		memcpy(smaller, frame, sizeof(QdbSharedFrame) + frame->length);
		pfree(frame);
		frame = smaller;
	}
	return frame;
}

/* Encodes what is in plain into a frame of its own memory. */
static QdbSharedFrame *
keep_frame(TimeLineID timeline, XLogRecPtr start, XLogRecPtr end, uint32 raw_length)
{
	QdbSharedFrame *frame = pack(raw_length);

	if (frame == NULL)
	{
		frame = new_frame(raw_length);
		if (frame == NULL)
			return NULL;
		put_prefix(plain + QDB_FRAME_HEADER_SIZE, QDB_CODEC_NONE, raw_length);
		frame->length = PLAIN_OFFSET + raw_length;
		memcpy(frame->bytes + QDB_FRAME_HEADER_SIZE, plain + QDB_FRAME_HEADER_SIZE, frame->length - QDB_FRAME_HEADER_SIZE);
	}
	frame->timeline = timeline;
	frame->start = start;
	frame->end = end;
	frame->refs = 0;
	qdb_frame_encode_header(frame->bytes, QDB_FRAME_WAL, frame->bytes + QDB_FRAME_HEADER_SIZE,
							frame->length - QDB_FRAME_HEADER_SIZE);
	kept_bytes += GetMemoryChunkSpace(frame);
	frames[nframes++] = frame;
	return frame;
}

/* The newest first: that is where most streams are. */
static QdbSharedFrame *
find_frame(TimeLineID timeline, XLogRecPtr start, XLogRecPtr upto)
{
	for (int i = nframes - 1; i >= 0; i--)
	{
		if (frames[i]->start == start && frames[i]->timeline == timeline && frames[i]->end <= upto)
			return frames[i];
	}
	return NULL;
}

QdbSharedFrame *
qdb_get_wal_frame(TimeLineID timeline, XLogRecPtr start, XLogRecPtr upto, char *why)
{
	XLogRecPtr	end = Min(upto, start - start % CHUNK_BYTES + CHUNK_BYTES);
	QdbSharedFrame *frame = find_frame(timeline, start, upto);
	uint8	   *p;

	if (frame != NULL)
		return frame;
	if (!prepare_buffers())
	{
		strlcpy(why, "out of memory", QDB_REASON_SIZE);
		return NULL;
	}
	p = put_u32(plain + PLAIN_OFFSET, WAL_HEADER_BYTES + (uint32) (end - start));
	*p++ = 'w';
	p = put_int64(p, start);
	p = put_int64(p, upto);
	p = put_int64(p, GetCurrentTimestamp());
	if (!qdb_read_wal(timeline, start, (char *) p, end - start, why))
		return NULL;
	p += end - start;
	frame = keep_frame(timeline, start, end, p - plain - PLAIN_OFFSET);
	if (frame == NULL)
		strlcpy(why, "out of memory", QDB_REASON_SIZE);
	return frame;
}

/* Another seat: other history, other bytes. */
void
qdb_forget_frames(void)
{
	for (int i = nframes - 1; i >= 0; i--)
	{
		if (frames[i]->refs == 0)
			drop_frame(i);
	}
}
