/*-------------------------------------------------------------------------
 *
 * serve_answer.c
 *		What one request for files, blocks or WAL is answered with.
 *
 * An answer is made from the files of the data directory as they are; at most one chunk.
 * Nothing here raises errors: what cannot be read is said to the other side.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/timeline.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "catalog/pg_control.h"
#include "common/relpath.h"
#include "storage/fd.h"

#include "wal/serve_internal.h"

#define CONTROL_TRIES		5

/* One answer is made at a time. */
static uint8 answer[QDB_ANSWER_SIZE];

static void
send_answer(QdbStream *stream, uint8 status, uint32 mask, uint32 length)
{
	qdb_transfer_answer_begin(answer, stream->serve->tail, status, mask);
	/* Otherwise it is made again in a later turn. */
	if (qdb_channel_send(stream->channel, QDB_FRAME_FILES_DATA, answer, QDB_TRANSFER_ANSWER_HEADER + length))
		stream->serve->tail++;
}

static void
send_failure(QdbStream *stream, const char *fmt,...)
{
	char	   *text = (char *) answer + QDB_TRANSFER_ANSWER_HEADER;
	va_list		args;

	va_start(args, fmt);
	vsnprintf(text, QDB_REASON_SIZE, fmt, args);
	va_end(args);
	ereport(LOG, (errmsg("[replication] Could not serve %s: %s",
						 qdb_member_label(stream->serve->member), text)));
	send_answer(stream, QDB_TRANSFER_FAILED, 0, strlen(text));
}

static int
open_part(int slot, const char *form)
{
	char		path[MAXPGPATH];

	snprintf(path, sizeof(path), form, slot);
	return BasicOpenFile(path, O_RDONLY | PG_BINARY);
}

/* Asks the helper, or looks whether it is ready; nothing is sent before. */
static void
answer_prepare(QdbStream *stream, const QdbTransferRequest *request)
{
	QdbServe   *serve = stream->serve;
	QdbSource	source;
	uint32		len = QDB_TRANSFER_CHUNK;
	const char *why;

	if (serve->prepared)
		qdb_serve_release_source(serve);
	if (serve->source < 0)
	{
		why = qdb_serve_want_source(serve, request);
		if (why != NULL)
			send_failure(stream, "%s", why);
		return;
	}
	SpinLockAcquire(&qdb_shared->mutex);
	source = qdb_shared->sources[serve->source];
	SpinLockRelease(&qdb_shared->mutex);
	if (source.serial != serve->serial || source.state == QDB_SOURCE_FAILED ||
		source.state == QDB_SOURCE_FREE)
	{
		send_failure(stream, "%s", source.serial == serve->serial && source.reason[0] != '\0' ?
					 source.reason : "the helper process has ended");
		qdb_serve_release_source(serve);
		return;
	}
	if (source.state != QDB_SOURCE_READY)
		return;
	serve->manifest_fd = open_part(serve->source, QDB_SOURCE_MANIFEST);
	serve->names_fd = open_part(serve->source, QDB_SOURCE_NAMES);
	if (serve->manifest_fd < 0 || serve->names_fd < 0)
	{
		send_failure(stream, "could not open the manifest: %s", strerror(errno));
		return;
	}
	serve->info = source.info;
	serve->prepared = true;
	if (qdb_manifest_info_encode(&serve->info, answer + QDB_TRANSFER_ANSWER_HEADER, &len))
		send_answer(stream, QDB_TRANSFER_OK, 0, len);
}

/* Up to length bytes; -1: errno. */
static ssize_t
read_range(int fd, uint8 *buf, size_t length, uint64 offset)
{
	size_t		done = 0;

	while (done < length)
	{
		ssize_t		n = pg_pread(fd, buf + done, length - done, (off_t) (offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (n == 0)
			break;
		done += n;
	}
	return done;
}

/* Opens path unless it is open; false: errno. */
static bool
open_path(QdbServe *serve, const char *path)
{
	if (serve->fd >= 0 && strcmp(serve->path, path) == 0)
		return true;
	qdb_serve_close_fd(&serve->fd);
	serve->fd = BasicOpenFile(path, O_RDONLY | O_NOFOLLOW | PG_BINARY);
	strlcpy(serve->path, path, sizeof(serve->path));
	return serve->fd >= 0;
}

static void
answer_range(QdbStream *stream, const char *path, const QdbTransferRequest *request)
{
	ssize_t		n;

	if (!open_path(stream->serve, path))
	{
		if (errno == ENOENT)
			send_answer(stream, QDB_TRANSFER_GONE, 0, 0);
		else
			send_failure(stream, "could not open file \"%s\": %s", path, strerror(errno));
		return;
	}
	n = read_range(stream->serve->fd, answer + QDB_TRANSFER_ANSWER_HEADER, request->length, request->offset);
	if (n < 0)
		send_failure(stream, "could not read file \"%s\": %s", path, strerror(errno));
	else
		send_answer(stream, QDB_TRANSFER_OK, 0, n);
}

static void
relation_path(const QdbRelationName *name, uint32 segment, char *path)
{
	char	   *base = GetRelationPath(name->database, name->tablespace, name->relation,
									   InvalidBackendId, (ForkNumber) name->fork);

	if (segment == 0)
		strlcpy(path, base, MAXPGPATH);
	else
		snprintf(path, MAXPGPATH, "%s.%u", base, segment);
	pfree(base);
}

/* Blocks that are not there, as a whole, are left out. */
static void
answer_blocks(QdbStream *stream, const QdbTransferRequest *request)
{
	uint8	   *out = answer + QDB_TRANSFER_ANSWER_HEADER;
	uint32		mask = 0;
	uint32		used = 0;

	for (uint32 i = 0; i < request->nblocks; i++)
	{
		char		path[MAXPGPATH];
		ssize_t		n;

		relation_path(&request->relation, request->blocks[i] / RELSEG_SIZE, path);
		if (!open_path(stream->serve, path))
		{
			if (errno == ENOENT)
				continue;
			send_failure(stream, "could not open file \"%s\": %s", path, strerror(errno));
			return;
		}
		n = read_range(stream->serve->fd, out + used, BLCKSZ,
					   (uint64) (request->blocks[i] % RELSEG_SIZE) * BLCKSZ);
		if (n < 0)
		{
			send_failure(stream, "could not read file \"%s\": %s", path, strerror(errno));
			return;
		}
		if (n != BLCKSZ)
			continue;
		mask |= (uint32) 1 << i;
		used += BLCKSZ;
	}
	send_answer(stream, QDB_TRANSFER_OK, mask, used);
}

static void
answer_file(QdbStream *stream, const QdbTransferRequest *request)
{
	QdbServe   *serve = stream->serve;
	char		path[QDB_SERVED_PATH_SIZE];

	if (!serve->prepared ||
		read_range(serve->names_fd, (uint8 *) path, sizeof(path),
				   (uint64) request->id * sizeof(path)) != sizeof(path) ||
		memchr(path, '\0', sizeof(path)) == NULL || !qdb_served_path_ok(path))
		send_failure(stream, "no file of number %u", request->id);
	else
		answer_range(stream, path, request);
}

static void
answer_manifest(QdbStream *stream, const QdbTransferRequest *request)
{
	ssize_t		n;

	if (!stream->serve->prepared)
	{
		send_failure(stream, "there is no manifest");
		return;
	}
	n = read_range(stream->serve->manifest_fd, answer + QDB_TRANSFER_ANSWER_HEADER,
				   request->length, request->offset);
	if (n < 0)
		send_failure(stream, "could not read the manifest: %s", strerror(errno));
	else
		send_answer(stream, QDB_TRANSFER_OK, 0, n);
}

static void
answer_wal(QdbStream *stream, const QdbTransferRequest *request)
{
	XLogRecPtr	limit = qdb_store_flush();	/* I4 */
	char		why[QDB_REASON_SIZE] = "";

	if (!tliInHistory(request->timeline, qdb_store.history))
	{
		send_failure(stream, "timeline %u is not in the history of timeline %u",
					 request->timeline, qdb_store.timeline);
		return;
	}
	if (request->timeline != qdb_store.timeline)
		limit = tliSwitchPoint(request->timeline, qdb_store.history, NULL);
	if (request->lsn == 0 || request->lsn + request->length > limit)
		send_failure(stream, "WAL up to %X/%X is not there", LSN_FORMAT_ARGS(request->lsn + request->length));
	else if (!qdb_read_wal(request->timeline, request->lsn, (char *) answer + QDB_TRANSFER_ANSWER_HEADER,
						   request->length, why))
		send_failure(stream, "%s", why);
	else
		send_answer(stream, QDB_TRANSFER_OK, 0, request->length);
}

static void
answer_history(QdbStream *stream, const QdbTransferRequest *request)
{
	char		path[MAXPGPATH];
	QdbTransferRequest whole = *request;

	if (!tliInHistory(request->timeline, qdb_store.history))
	{
		send_failure(stream, "timeline %u is not in the history of timeline %u",
					 request->timeline, qdb_store.timeline);
		return;
	}
	TLHistoryFilePath(path, request->timeline);
	whole.offset = 0;
	whole.length = QDB_TRANSFER_CHUNK;
	answer_range(stream, path, &whole);
}

/* The server writes it in place: what does not add up is read again. */
static void
answer_control(QdbStream *stream)
{
	ControlFileData *control = (ControlFileData *) palloc(sizeof(ControlFileData));
	bool		good = false;

	for (int i = 0; i < CONTROL_TRIES && !good; i++)
	{
		int			fd = BasicOpenFile(XLOG_CONTROL_FILE, O_RDONLY | PG_BINARY);
		pg_crc32c	crc;

		if (fd < 0)
			break;
		if (read_range(fd, (uint8 *) control, sizeof(*control), 0) == sizeof(*control))
		{
			INIT_CRC32C(crc);
			COMP_CRC32C(crc, (char *) control, offsetof(ControlFileData, crc));
			FIN_CRC32C(crc);
			good = EQ_CRC32C(crc, control->crc);
		}
		close(fd);
	}
	if (good)
	{
		memcpy(answer + QDB_TRANSFER_ANSWER_HEADER, control, sizeof(*control));
		send_answer(stream, QDB_TRANSFER_OK, 0, sizeof(*control));
	}
	else
		send_failure(stream, "could not read the control file");
	pfree(control);
}

static void
answer_position(QdbStream *stream)
{
	QdbSourcePosition position;
	uint32		len = QDB_TRANSFER_CHUNK;

	position.epoch = qdb_store.epoch;
	position.timeline = qdb_store.timeline;
	position.flush = qdb_store_flush();
	/* Only the holder counts. */
	position.quorum = qdb_store.replica ? InvalidXLogRecPtr : pg_atomic_read_u64(&qdb_shared->quorum_lsn);
	if (qdb_source_position_encode(&position, answer + QDB_TRANSFER_ANSWER_HEADER, &len))
		send_answer(stream, QDB_TRANSFER_OK, 0, len);
}

void
qdb_serve_answer(QdbStream *stream, const QdbTransferRequest *request)
{
	char		path[MAXPGPATH];

	switch ((QdbTransferKind) request->kind)
	{
		case QDB_TRANSFER_MANIFEST:
			answer_prepare(stream, request);
			break;
		case QDB_TRANSFER_READ_MANIFEST:
			answer_manifest(stream, request);
			break;
		case QDB_TRANSFER_FILE:
			answer_file(stream, request);
			break;
		case QDB_TRANSFER_RELATION:
			relation_path(&request->relation, request->relation.segment, path);
			answer_range(stream, path, request);
			break;
		case QDB_TRANSFER_BLOCKS:
			answer_blocks(stream, request);
			break;
		case QDB_TRANSFER_WAL:
			answer_wal(stream, request);
			break;
		case QDB_TRANSFER_HISTORY:
			answer_history(stream, request);
			break;
		case QDB_TRANSFER_CONTROL:
			answer_control(stream);
			break;
		case QDB_TRANSFER_POSITION:
			answer_position(stream);
			break;
	}
}
