/*-------------------------------------------------------------------------
 *
 * fetch.c
 *		Files, blocks and WAL of the primary; see fetch.h.
 *
 * A fixed number of requests is under way at any time, so that neither the
 * distance between the nodes nor many small files cost a round trip each, and no
 * queue grows.  The socket is driven only while something is waited for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/channel.h"
#include "failover/fetch.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/wait_event.h"

#define UNDER_WAY			32
#define CONNECT_US			INT64CONST(10000000)
#define SILENCE_US			INT64CONST(60000000)	/* without a byte */
#define PREPARE_US			INT64CONST(3600000000)	/* a checkpoint of a large
													 * server */

typedef struct UnderWay
{
	QdbTransferRequest request;
	QdbFetchTake take;
	void	   *arg;
} UnderWay;

struct QdbFetch
{
	QdbChannel *channel;
	UnderWay	queue[UNDER_WAY];
	uint32		head;			/* next to be asked */
	uint32		tail;			/* next to be answered */
	uint64		bytes;
	QdbFetchReport report;		/* NULL: nobody asks */
	void	   *report_arg;
	int64		free_us;		/* throttled until then */
	char		why[QDB_REASON_SIZE];
};

bool
qdb_fetch_fail(QdbFetch *fetch, const char *fmt,...)
{
	va_list		args;

	if (fetch->why[0] != '\0')
		return false;			/* the first one is the cause */
	va_start(args, fmt);
	vsnprintf(fetch->why, sizeof(fetch->why), fmt, args);
	va_end(args);
	return false;
}

const char *
qdb_fetch_error(const QdbFetch *fetch)
{
	return fetch->why;
}

void
qdb_fetch_report(QdbFetch *fetch, QdbFetchReport report, void *arg)
{
	fetch->report = report;
	fetch->report_arg = arg;
	report(fetch->bytes, arg);
}

void
qdb_fetch_close(QdbFetch *fetch)
{
	if (fetch == NULL)
		return;
	qdb_channel_close(fetch->channel);
	pfree(fetch);
}

static void
wait_channel(QdbChannel *channel, int timeout_ms)
{
	int			events = WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH | WL_SOCKET_READABLE;

	if (qdb_channel_fd(channel) < 0)
		return;
	if (qdb_channel_wants_write(channel))
		events |= WL_SOCKET_WRITEABLE;
	if (WaitLatchOrSocket(MyLatch, events, qdb_channel_fd(channel), timeout_ms,
						  PG_WAIT_EXTENSION) & WL_LATCH_SET)
		ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/*
 * Waits for a frame.  False: the connection failed, or nothing has come for
 * silence_us.
 */
static bool
await_frame(QdbFetch *fetch, QdbFrame *frame, int64 silence_us)
{
	int64		deadline = qdb_now_us() + silence_us;
	uint64		received = qdb_channel_bytes_received(fetch->channel);

	for (;;)
	{
		if (qdb_channel_receive(fetch->channel, frame))
			return true;
		if (qdb_channel_state(fetch->channel) == QDB_CHANNEL_FAILED)
			return qdb_fetch_fail(fetch, "the connection failed: %s", qdb_channel_error(fetch->channel));
		if (qdb_channel_bytes_received(fetch->channel) != received)
		{
			received = qdb_channel_bytes_received(fetch->channel);
			deadline = qdb_now_us() + silence_us;
		}
		if (qdb_now_us() > deadline)
			return qdb_fetch_fail(fetch, "no answer in time");
		wait_channel(fetch->channel, 1000);
		qdb_channel_drive(fetch->channel);
	}
}

static bool
read_greeting(QdbFetch *fetch, const QdbFrame *frame, QdbFilesWelcome *welcome, bool *retry)
{
	QdbStreamRefusal refusal;

	if (frame->type == QDB_FRAME_FILES_WELCOME &&
		qdb_files_welcome_decode(frame->payload, frame->length, welcome))
		return true;
	if (frame->type != QDB_FRAME_STREAM_REFUSED)
		return qdb_fetch_fail(fetch, "unexpected answer to the greeting");
	if (!qdb_refusal_decode(frame->payload, frame->length, &refusal))
		return qdb_fetch_fail(fetch, "malformed refusal");
	*retry = refusal.retry;
	return qdb_fetch_fail(fetch, "%s", refusal.text);
}

/* Is this the member that holds the seat, by its certificate? */
static bool
is_source(QdbFetch *fetch, uint64 source, const QdbFilesHello *hello)
{
	const QdbMember *member;
	const char *complaint = "it is no member any more";

	LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
	member = qdb_member_by_id(&qdb_shared->state, source);
	if (member != NULL)
		complaint = qdb_judge_certificate(&qdb_shared->state, qdb_channel_peer(fetch->channel),
										  hello->cluster_id, source, member->incarnation, member->name);
	LWLockRelease(qdb_shared->state_lock);
	return complaint == NULL || qdb_fetch_fail(fetch, "%s", complaint);
}

static bool
greet(QdbFetch *fetch, uint64 source, const QdbFilesHello *hello, QdbFilesWelcome *welcome, bool *retry)
{
	int64		deadline = qdb_now_us() + CONNECT_US;
	uint8		buf[QDB_FILES_HELLO_MAX];
	uint32		len = sizeof(buf);
	QdbFrame	frame;

	*retry = true;
	while (qdb_channel_state(fetch->channel) == QDB_CHANNEL_CONNECTING && qdb_now_us() < deadline)
	{
		wait_channel(fetch->channel, 100);
		qdb_channel_drive(fetch->channel);
	}
	if (qdb_channel_state(fetch->channel) != QDB_CHANNEL_UP)
		return qdb_fetch_fail(fetch, "could not connect: %s",
							  qdb_channel_state(fetch->channel) == QDB_CHANNEL_FAILED ?
							  qdb_channel_error(fetch->channel) : "timed out");
	if (!is_source(fetch, source, hello))
		return false;
	if (!qdb_files_hello_encode(hello, buf, &len) ||
		!qdb_channel_send(fetch->channel, QDB_FRAME_FILES_HELLO, buf, len))
		return qdb_fetch_fail(fetch, "could not send the greeting");
	return await_frame(fetch, &frame, CONNECT_US) && read_greeting(fetch, &frame, welcome, retry);
}

QdbFetch *
qdb_fetch_open(uint64 source, const char *host, int port, const QdbFilesHello *hello,
			   QdbFilesWelcome *welcome, char *why, bool *retry)
{
	QdbFetch   *fetch = palloc0(sizeof(QdbFetch));

	*retry = true;
	fetch->channel = qdb_channel_connect(host, port);
	if (fetch->channel == NULL)
		(void) qdb_fetch_fail(fetch, "out of memory");
	else if (greet(fetch, source, hello, welcome, retry))
		return fetch;
	strlcpy(why, fetch->why, QDB_REASON_SIZE);
	qdb_fetch_close(fetch);
	return NULL;
}

/* What a lower rate has put off does not hold for a higher one. */
static void
take_settings(QdbFetch *fetch)
{
	int			rate_kb = qdb_clone_rate_kb;

	if (!ConfigReloadPending)
		return;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	if (qdb_clone_rate_kb != rate_kb)
		fetch->free_us = 0;
}

/* Here too, not only at the source: the setting is for the node it is set on. */
static void
throttle(QdbFetch *fetch, uint32 bytes)
{
	int64		now = qdb_now_us();

	take_settings(fetch);
	if (qdb_clone_rate_kb <= 0)
		return;
	fetch->free_us = Max(fetch->free_us, now - 100000) + bytes * INT64CONST(1000000) / (qdb_clone_rate_kb * INT64CONST(1024));
	while ((now = qdb_now_us()) < fetch->free_us)
	{
		if (WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					  (fetch->free_us - now) / 1000 + 1, PG_WAIT_EXTENSION) & WL_LATCH_SET)
			ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		take_settings(fetch);
	}
}

static bool
take_answer(QdbFetch *fetch)
{
	UnderWay   *way = &fetch->queue[fetch->tail % UNDER_WAY];
	QdbTransferAnswer answer;
	QdbFrame	frame;

	if (!await_frame(fetch, &frame, way->request.kind == QDB_TRANSFER_MANIFEST ? PREPARE_US : SILENCE_US))
		return false;
	fetch->tail++;
	if (frame.type == QDB_FRAME_STREAM_REFUSED)
	{
		QdbFilesWelcome welcome;
		bool		retry;

		return read_greeting(fetch, &frame, &welcome, &retry) && qdb_fetch_fail(fetch, "unexpected answer");
	}
	if (frame.type != QDB_FRAME_FILES_DATA || !qdb_transfer_answer_decode(frame.payload, frame.length, &answer))
		return qdb_fetch_fail(fetch, "malformed answer");
	if (answer.number != fetch->tail - 1)
		return qdb_fetch_fail(fetch, "an answer is missing");
	if (answer.status == QDB_TRANSFER_FAILED)
		return qdb_fetch_fail(fetch, "the source says: %.*s", (int) Min(answer.length, QDB_REASON_SIZE - 32),
							  (const char *) answer.data);
	fetch->bytes += answer.length;
	if (fetch->report != NULL)
		fetch->report(fetch->bytes, fetch->report_arg);
	throttle(fetch, answer.length);
	return way->take(fetch, &way->request, &answer, way->arg);
}

bool
qdb_fetch_ask(QdbFetch *fetch, const QdbTransferRequest *request, QdbFetchTake take, void *arg)
{
	uint8		buf[QDB_FILES_REQUEST_MAX];
	uint32		len = sizeof(buf);
	UnderWay   *way;

	while (fetch->head - fetch->tail >= UNDER_WAY)
	{
		if (!take_answer(fetch))
			return false;
	}
	if (!qdb_transfer_request_encode(request, buf, &len) ||
		!qdb_channel_send(fetch->channel, QDB_FRAME_FILES_REQUEST, buf, len))
		return qdb_fetch_fail(fetch, "could not send a request: %s", qdb_channel_error(fetch->channel));
	way = &fetch->queue[fetch->head++ % UNDER_WAY];
	way->request = *request;
	way->take = take;
	way->arg = arg;
	return true;
}

bool
qdb_fetch_finish(QdbFetch *fetch)
{
	while (fetch->head != fetch->tail)
	{
		if (!take_answer(fetch))
			return false;
	}
	return fetch->why[0] == '\0';
}

typedef struct OneAnswer
{
	void	   *buf;
	size_t		size;
	size_t		length;
	bool		gone;
} OneAnswer;

static bool
take_one(QdbFetch *fetch, const QdbTransferRequest *request, const QdbTransferAnswer *answer, void *arg)
{
	OneAnswer  *one = arg;

	one->gone = answer->status == QDB_TRANSFER_GONE;
	if (answer->length > one->size)
		return qdb_fetch_fail(fetch, "an answer is too long");
	if (answer->length > 0)
		memcpy(one->buf, answer->data, answer->length);
	one->length = answer->length;
	return true;
}

bool
qdb_fetch_one(QdbFetch *fetch, const QdbTransferRequest *request, void *buf, size_t size,
			  size_t *length, bool *gone)
{
	OneAnswer	one = {.buf = buf,.size = size};

	if (!qdb_fetch_finish(fetch) || !qdb_fetch_ask(fetch, request, take_one, &one) ||
		!qdb_fetch_finish(fetch))
		return false;
	*length = one.length;
	if (gone != NULL)
		*gone = one.gone;
	else if (one.gone)
		return qdb_fetch_fail(fetch, "the source does not have it");
	return true;
}

bool
qdb_fetch_prepare(QdbFetch *fetch, bool checkpoint, XLogRecPtr resume, QdbManifestInfo *info)
{
	QdbTransferRequest request = {.kind = QDB_TRANSFER_MANIFEST,.flag = checkpoint,.lsn = resume};
	uint8		buf[128];
	size_t		length;

	if (!qdb_fetch_one(fetch, &request, buf, sizeof(buf), &length, NULL))
		return false;
	return qdb_manifest_info_decode(buf, length, info) || qdb_fetch_fail(fetch, "malformed answer");
}

bool
qdb_fetch_position(QdbFetch *fetch, QdbSourcePosition *position)
{
	QdbTransferRequest request = {.kind = QDB_TRANSFER_POSITION};
	uint8		buf[64];
	size_t		length;

	if (!qdb_fetch_one(fetch, &request, buf, sizeof(buf), &length, NULL))
		return false;
	return qdb_source_position_decode(buf, length, position) || qdb_fetch_fail(fetch, "malformed answer");
}

bool
qdb_fetch_control(QdbFetch *fetch, ControlFileData *control)
{
	QdbTransferRequest request = {.kind = QDB_TRANSFER_CONTROL};
	size_t		length;

	if (!qdb_fetch_one(fetch, &request, control, sizeof(*control), &length, NULL))
		return false;
	return length == sizeof(*control) || qdb_fetch_fail(fetch, "its control file has another size");
}

bool
qdb_fetch_history(QdbFetch *fetch, TimeLineID timeline, char *buf, size_t size,
				  size_t *length, bool *gone)
{
	QdbTransferRequest request = {.kind = QDB_TRANSFER_HISTORY,.timeline = timeline};

	return qdb_fetch_one(fetch, &request, buf, size, length, gone);
}

/* What has come of the manifest and is not taken yet. */
typedef struct ManifestInput
{
	uint8		buf[QDB_MANIFEST_ENTRY_MAX + QDB_TRANSFER_CHUNK];
	uint32		used;
	bool		ended;
	QdbEntryTake take;
	void	   *arg;
} ManifestInput;

static bool
take_manifest(QdbFetch *fetch, const QdbTransferRequest *request, const QdbTransferAnswer *answer, void *arg)
{
	ManifestInput *input = arg;
	uint32		pos = 0;

	if (answer->length != request->length || input->used + answer->length > sizeof(input->buf))
		return qdb_fetch_fail(fetch, "the manifest is cut off");
	memcpy(input->buf + input->used, answer->data, answer->length);
	input->used += answer->length;
	while (!input->ended)
	{
		QdbManifestEntry entry;
		uint32		used = 0;
		int			rc = qdb_manifest_entry_decode(input->buf + pos, input->used - pos, &entry, &used);

		if (rc == 0)
			break;
		if (rc < 0)
			return qdb_fetch_fail(fetch, "malformed manifest");
		pos += used;
		input->ended = entry.kind == QDB_ENTRY_END;
		if (!input->take(fetch, &entry, input->arg))
			return false;
	}
	input->used -= pos;
	memmove(input->buf, input->buf + pos, input->used);
	/* The rest of an entry is never longer than one can be. */
	return input->used < QDB_MANIFEST_ENTRY_MAX || qdb_fetch_fail(fetch, "malformed manifest");
}

bool
qdb_fetch_manifest(QdbFetch *fetch, const QdbManifestInfo *info, QdbEntryTake take, void *arg)
{
	ManifestInput *input = palloc(sizeof(ManifestInput));
	QdbTransferRequest request = {.kind = QDB_TRANSFER_READ_MANIFEST};
	bool		ok = true;

	input->used = 0;
	input->ended = false;
	input->take = take;
	input->arg = arg;
	while (ok && request.offset < info->length)
	{
		request.length = Min(info->length - request.offset, QDB_TRANSFER_CHUNK);
		ok = qdb_fetch_ask(fetch, &request, take_manifest, input);
		request.offset += request.length;
	}
	ok = ok && qdb_fetch_finish(fetch);
	if (ok && (!input->ended || input->used > 0))
		ok = qdb_fetch_fail(fetch, "the manifest has no end");
	pfree(input);
	return ok;
}

bool
qdb_fetch_wal(QdbFetch *fetch, TimeLineID timeline, XLogRecPtr start, XLogRecPtr end,
			  QdbFetchTake take, void *arg)
{
	QdbTransferRequest request = {.kind = QDB_TRANSFER_WAL,.timeline = timeline};

	while (start < end)
	{
		/* A piece ends where a chunk does, so that none spans two segments. */
		XLogRecPtr	next = Min(end, start - start % QDB_TRANSFER_CHUNK + QDB_TRANSFER_CHUNK);

		request.lsn = start;
		request.length = next - start;
		if (!qdb_fetch_ask(fetch, &request, take, arg))
			return false;
		start = next;
	}
	return true;
}
