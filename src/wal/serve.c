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

#include <unistd.h>

#include "access/twophase.h"
#include "access/xlog.h"
#include "catalog/catversion.h"
#include "catalog/pg_control.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "replication/walsender.h"
#include "storage/fd.h"
#include "storage/lock.h"
#include "utils/memutils.h"

#include "wal/serve_internal.h"

#define QUEUED_BYTES		(1024 * 1024)
#define IDLE_US				INT64CONST(900000000)
#define BURST_US			250000

static int64 throttled_until_us = 0;	/* of all connections together */
static uint64 last_serial = 0;

void
qdb_serve_close_fd(int *fd)
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
	qdb_channel_set_queue_limit(stream->channel, QUEUED_BYTES + 2 * QDB_ANSWER_SIZE);
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
	if (serve->head - serve->tail >= QDB_MAX_QUEUED)
		qdb_stream_refuse(stream, false, "too many requests are under way");
	else if (!qdb_transfer_request_decode(frame->payload, frame->length,
										  &serve->queue[serve->head % QDB_MAX_QUEUED]))
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

const char *
qdb_serve_want_source(QdbServe *serve, const QdbTransferRequest *request)
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

void
qdb_serve_release_source(QdbServe *serve)
{
	QdbSource  *source;

	qdb_serve_close_fd(&serve->manifest_fd);
	qdb_serve_close_fd(&serve->names_fd);
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
	qdb_serve_release_source(serve);
	qdb_serve_close_fd(&serve->fd);
	pfree(serve);
	stream->serve = NULL;
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
	qdb_serve_answer(stream, &serve->queue[serve->tail % QDB_MAX_QUEUED]);
	count_bytes(qdb_channel_bytes_sent(stream->channel) + qdb_channel_queued(stream->channel) - before, now);
	return serve->tail != tail && serve->head != serve->tail;
}
