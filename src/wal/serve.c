/*-------------------------------------------------------------------------
 *
 * serve.c
 *		Files, blocks and WAL for a node that resynchronises.
 *
 * Runs in the streamer's loop, next to the streams that commits wait for:
 * therefore a turn of one connection reads at most one chunk, a connection has a
 * bounded number of requests and of bytes in its queue, and what takes long (a
 * checkpoint, a walk over all files) is done by a helper process (source.c).
 *
 * The holder of the seat serves, and to clones also a replica that follows it (store.c);
 * only to a member that names the epoch, and a change of the seat ends it.  Names are numbers (transfer.h), so there is
 * nothing to climb out of the data directory with.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/timeline.h"
#include "access/twophase.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "catalog/catversion.h"
#include "catalog/pg_control.h"
#include "common/relpath.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "replication/walsender.h"
#include "storage/fd.h"
#include "storage/lock.h"
#include "utils/memutils.h"

#include "wal/serve.h"

#define MAX_QUEUED			64
#define QUEUED_BYTES		(1024 * 1024)
#define IDLE_US				INT64CONST(900000000)
#define CONTROL_TRIES		5
#define BURST_US			250000

typedef struct QdbServe
{
	uint64		member;
	QdbTransferRequest queue[MAX_QUEUED];
	uint32		head;
	uint32		tail;
	int64		heard_us;

	int			source;			/* -1: none */
	uint64		serial;
	bool		prepared;
	QdbManifestInfo info;
	int			manifest_fd;
	int			names_fd;

	int			fd;				/* of path */
	char		path[MAXPGPATH];
} QdbServe;

/* One answer is made at a time. */
static uint8 answer[QDB_TRANSFER_ANSWER_HEADER + QDB_TRANSFER_CHUNK];
static int64 throttled_until_us = 0;	/* of all connections together */
static uint64 last_serial = 0;

static void
close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* ---- greeting ---- */

static bool
check_hello(QdbStream *stream, const QdbFilesHello *hello)
{
	const QdbMember *member;
	bool		same_cluster;
	bool		known;
	const char *why;

	LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
	member = qdb_member_by_id(&qdb_shared->state, hello->member);
	same_cluster = strcmp(hello->cluster_id, qdb_shared->state.cluster_id) == 0;
	known = member != NULL && member->incarnation == hello->incarnation &&
		hello->member != qdb_shared->identity.member;
	why = qdb_judge_certificate(&qdb_shared->state, qdb_channel_peer(stream->channel),
								qdb_shared->identity.cluster_id, hello->member, hello->incarnation,
								member != NULL ? member->name : "");
	LWLockRelease(qdb_shared->state_lock);

	if (hello->version != QDB_TRANSFER_VERSION)
		qdb_stream_refuse(stream, false, "transfer protocol version %u is not %d; run the same version",
						  hello->version, QDB_TRANSFER_VERSION);
	else if (!same_cluster)
		qdb_stream_refuse(stream, false, "this node belongs to another cluster");
	else if (qdb_store.epoch == 0 || (qdb_store.replica && hello->purpose != QDB_FILES_CLONE))
		qdb_stream_refuse(stream, true, "this node is not the primary");
	else if (hello->epoch != qdb_store.epoch)
		qdb_stream_refuse(stream, true, "this node serves epoch " UINT64_FORMAT
						  ", not " UINT64_FORMAT, qdb_store.epoch, hello->epoch);
	else if (!known)
		qdb_stream_refuse(stream, true, "no member " UINT64_FORMAT " with this incarnation",
						  hello->member);
	else if (why != NULL)
		qdb_stream_refuse(stream, false, "%s", why);
	else
		return true;
	return false;
}

static void
fill_welcome(QdbFilesWelcome *welcome)
{
	memset(welcome, 0, sizeof(*welcome));
	welcome->system_identifier = GetSystemIdentifier();
	welcome->epoch = qdb_store.epoch;
	welcome->timeline = qdb_store.timeline;
	welcome->flush = qdb_store_flush();
	welcome->control_version = PG_CONTROL_VERSION;
	welcome->catalog_version = CATALOG_VERSION_NO;
	welcome->block_size = BLCKSZ;
	welcome->segment_blocks = RELSEG_SIZE;
	welcome->wal_block_size = XLOG_BLCKSZ;
	welcome->wal_segment_size = wal_segment_size;
	welcome->limits[0] = MaxConnections;
	welcome->limits[1] = max_worker_processes;
	welcome->limits[2] = max_wal_senders;
	welcome->limits[3] = max_prepared_xacts;
	welcome->limits[4] = max_locks_per_xact;
}

/*
 * I11: its stream ends here, and with it what it has acknowledged is forgotten;
 * then the flush position is read, which what it gets will have reached.  On a replica
 * nobody streams: there only an older connection for files ends.
 */
static void
forget_acks(QdbStream *stream, uint64 member)
{
	for (int i = 0; i < QDB_MAX_STREAMS; i++)
	{
		QdbStream  *other = &qdb_streams[i];

		if (other != stream && other->channel != NULL && other->member == member)
			qdb_stream_refuse(other, true, "this member gets its data anew");
		else if (other != stream && other->serve != NULL && other->serve->member == member)
			qdb_stream_refuse(other, true, "replaced by a newer connection");
	}
}

void
qdb_serve_hello(QdbStream *stream, const QdbFrame *frame)
{
	QdbFilesHello hello;
	QdbFilesWelcome welcome;
	uint8		buf[QDB_FILES_WELCOME_MAX];
	uint32		len = sizeof(buf);
	QdbServe   *serve;

	if (stream->member != 0 || stream->serve != NULL ||
		!qdb_files_hello_decode(frame->payload, frame->length, &hello))
	{
		qdb_stream_refuse(stream, false, "malformed greeting");
		return;
	}
	if (!check_hello(stream, &hello))
		return;
	serve = MemoryContextAllocExtended(TopMemoryContext, sizeof(QdbServe), MCXT_ALLOC_NO_OOM | MCXT_ALLOC_ZERO);
	if (serve == NULL)
	{
		qdb_stream_refuse(stream, true, "out of memory");
		return;
	}
	serve->member = hello.member;
	serve->source = serve->manifest_fd = serve->names_fd = serve->fd = -1;
	serve->heard_us = qdb_now_us();
	qdb_channel_set_queue_limit(stream->channel, QUEUED_BYTES + 2 * sizeof(answer));
	forget_acks(stream, hello.member);
	stream->serve = serve;
	fill_welcome(&welcome);
	if (hello.purpose == QDB_FILES_REWIND)
		ereport(LOG, (errmsg("[replication] Serving files to %s for a rewind", qdb_member_label(hello.member))));
	if (qdb_files_welcome_encode(&welcome, buf, &len))
		qdb_channel_send(stream->channel, QDB_FRAME_FILES_WELCOME, buf, len);
}

void
qdb_serve_request(QdbStream *stream, const QdbFrame *frame)
{
	QdbServe   *serve = stream->serve;

	serve->heard_us = qdb_now_us();
	if (serve->head - serve->tail >= MAX_QUEUED)
		qdb_stream_refuse(stream, false, "too many requests are under way");
	else if (!qdb_transfer_request_decode(frame->payload, frame->length,
										  &serve->queue[serve->head % MAX_QUEUED]))
		qdb_stream_refuse(stream, false, "malformed request");
	else
		serve->head++;
}

/* ---- the helper ---- */

static bool
start_helper(int slot)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_ConsistentState;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	snprintf(worker.bgw_name, BGW_MAXLEN, "quantadb source");
	snprintf(worker.bgw_type, BGW_MAXLEN, "quantadb source");
	snprintf(worker.bgw_library_name, BGW_MAXLEN, "quantadb");
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "qdb_source_main");
	worker.bgw_main_arg = Int32GetDatum(slot);
	worker.bgw_notify_pid = MyProcPid;
	return RegisterDynamicBackgroundWorker(&worker, NULL);
}

/* Why there is no helper; NULL: one is on its way. */
static const char *
want_source(QdbServe *serve, const QdbTransferRequest *request)
{
	int			found = -1;

	SpinLockAcquire(&qdb_shared->mutex);
	for (int i = 0; i < QDB_MAX_SOURCES && found < 0; i++)
	{
		QdbSource  *source = &qdb_shared->sources[i];

		if (source->state != QDB_SOURCE_FREE)
			continue;
		memset(source, 0, sizeof(*source));
		source->state = QDB_SOURCE_WANTED;
		source->serial = ++last_serial;
		source->checkpoint = request->flag;
		source->resume = request->lsn;
		source->member = serve->member;
		source->streamer = MyProcPid;
		found = i;
	}
	SpinLockRelease(&qdb_shared->mutex);
	if (found < 0)
		return "too many nodes are being cloned; try again later";
	if (!start_helper(found))
	{
		SpinLockAcquire(&qdb_shared->mutex);
		qdb_shared->sources[found].state = QDB_SOURCE_FREE;
		SpinLockRelease(&qdb_shared->mutex);
		return "no background worker is free; raise max_worker_processes";
	}
	serve->source = found;
	serve->serial = last_serial;
	ereport(LOG, (errmsg("[replication] Serving files to %s for a clone", qdb_member_label(serve->member))));
	return NULL;
}

static void
release_source(QdbServe *serve)
{
	QdbSource  *source;

	close_fd(&serve->manifest_fd);
	close_fd(&serve->names_fd);
	serve->prepared = false;
	if (serve->source < 0)
		return;
	source = &qdb_shared->sources[serve->source];
	SpinLockAcquire(&qdb_shared->mutex);
	if (source->serial == serve->serial)
	{
		source->stop = true;
		if (source->state == QDB_SOURCE_FAILED)
			source->state = QDB_SOURCE_FREE;
	}
	SpinLockRelease(&qdb_shared->mutex);
	serve->source = -1;
}

void
qdb_serve_end(QdbStream *stream)
{
	QdbServe   *serve = stream->serve;

	if (serve == NULL)
		return;
	release_source(serve);
	close_fd(&serve->fd);
	pfree(serve);
	stream->serve = NULL;
}

/* ---- answers ---- */

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
		release_source(serve);
	if (serve->source < 0)
	{
		why = want_source(serve, request);
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
		release_source(serve);
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
	close_fd(&serve->fd);
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

static void
answer_request(QdbStream *stream, const QdbTransferRequest *request)
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

/* Tokens of a quarter of a second may be saved up, since the loop may sleep that long. */
static void
count_bytes(uint64 bytes, int64 now)
{
	if (qdb_clone_rate_kb <= 0)
		return;
	throttled_until_us = Max(throttled_until_us, now - BURST_US) +
		(int64) (bytes * 1000000 / ((uint64) qdb_clone_rate_kb * 1024));
}

/* What a lower rate has put off does not hold for a higher one. */
static void
note_rate(void)
{
	static int	rate_kb = 0;

	if (rate_kb != qdb_clone_rate_kb)
		throttled_until_us = 0;
	rate_kb = qdb_clone_rate_kb;
}

bool
qdb_serve_turn(QdbStream *stream, int64 now)
{
	QdbServe   *serve = stream->serve;
	uint64		before = qdb_channel_bytes_sent(stream->channel) + qdb_channel_queued(stream->channel);
	uint32		tail = serve->tail;

	if (stream->closing)
		return false;
	if (serve->head == serve->tail)
	{
		if (now - serve->heard_us > IDLE_US)
			qdb_stream_refuse(stream, true, "nothing was asked for too long");
		return false;
	}
	note_rate();
	if (qdb_channel_queued(stream->channel) >= QUEUED_BYTES ||
		(qdb_clone_rate_kb > 0 && now < throttled_until_us))
		return false;
	answer_request(stream, &serve->queue[serve->tail % MAX_QUEUED]);
	count_bytes(qdb_channel_bytes_sent(stream->channel) + qdb_channel_queued(stream->channel) - before, now);
	return serve->tail != tail && serve->head != serve->tail;
}
