/*-------------------------------------------------------------------------
 *
 * transfer.c
 *		Codecs of the file transfer, and what may be transferred at all.
 *
 * A length is refused where it is read, not where it is used: no answer may be
 * larger than one chunk.
 *
 *-------------------------------------------------------------------------
 */
#include "core/transfer.h"

#include <string.h>

#define GLOBAL_TABLESPACE	1664
#define LAST_FORK			3	/* init */

const char *const qdb_served_folders[] = {
	"base", "global", "pg_commit_ts", "pg_logical", "pg_multixact", "pg_tblspc", "pg_twophase",
	"pg_xact", NULL
};

const char *const qdb_empty_folders[] = {
	"pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat", "pg_stat_tmp",
	"pg_subtrans", NULL
};

/* Names that mean something to the server that made them only. */
static const char *const private_prefixes[] = {
	"pgsql_tmp", "pg_internal.init", "pg_control", NULL
};

static bool
in_list(const char *const *list, const char *name, size_t length)
{
	for (; *list != NULL; list++)
	{
		if (strlen(*list) == length && memcmp(*list, name, length) == 0)
			return true;
	}
	return false;
}

static bool
component_ok(const char *name, size_t length)
{
	if (length == 0 || name[0] == '.')
		return false;
	for (const char *const *prefix = private_prefixes; *prefix != NULL; prefix++)
	{
		if (length >= strlen(*prefix) && memcmp(*prefix, name, strlen(*prefix)) == 0)
			return false;
	}
	for (size_t i = 0; i < length; i++)
	{
		if ((unsigned char) name[i] < ' ' || name[i] == '\\')
			return false;
	}
	return true;
}

bool
qdb_served_path_ok(const char *path)
{
	size_t		length = strcspn(path, "/");

	if (strlen(path) >= QDB_SERVED_PATH_SIZE)
		return false;
	if (strcmp(path, "PG_VERSION") == 0)
		return true;
	if (in_list(qdb_empty_folders, path, length))
		return path[length] == '\0';
	if (!in_list(qdb_served_folders, path, length))
		return false;
	for (;;)
	{
		if (!component_ok(path, length))
			return false;
		if (path[length] == '\0')
			return true;
		path += length + 1;
		length = strcspn(path, "/");
	}
}

bool
qdb_relation_name_ok(const QdbRelationName *name)
{
	return name->tablespace != 0 && name->relation != 0 && name->fork <= LAST_FORK &&
		(name->database == 0) == (name->tablespace == GLOBAL_TABLESPACE);
}

bool
qdb_refusal_encode(const QdbStreamRefusal *refusal, uint8_t *buf, uint32_t *len)
{
	QdbWriter	w = {.buf = buf,.size = *len};

	qdb_put_u8(&w, refusal->retry ? 1 : 0);
	qdb_put_string(&w, refusal->text);
	return qdb_writer_done(&w, len);
}

bool
qdb_refusal_decode(const uint8_t *buf, uint32_t len, QdbStreamRefusal *refusal)
{
	QdbReader	r = {.buf = buf,.size = len};

	memset(refusal, 0, sizeof(*refusal));
	refusal->retry = qdb_get_bool(&r);
	qdb_get_string(&r, refusal->text, sizeof(refusal->text));
	return qdb_reader_done(&r);
}

bool
qdb_files_hello_encode(const QdbFilesHello *hello, uint8_t *buf, uint32_t *len)
{
	QdbWriter	w = {.buf = buf,.size = *len};

	qdb_put_u32(&w, hello->version);
	qdb_put_u8(&w, hello->purpose);
	qdb_put_string(&w, hello->cluster_id);
	qdb_put_u64(&w, hello->member);
	qdb_put_u64(&w, hello->incarnation);
	qdb_put_u64(&w, hello->boot);
	qdb_put_u64(&w, hello->epoch);
	return qdb_writer_done(&w, len);
}

bool
qdb_files_hello_decode(const uint8_t *buf, uint32_t len, QdbFilesHello *hello)
{
	QdbReader	r = {.buf = buf,.size = len};

	memset(hello, 0, sizeof(*hello));
	hello->version = qdb_get_u32(&r);
	hello->purpose = qdb_get_u8(&r);
	qdb_get_string(&r, hello->cluster_id, sizeof(hello->cluster_id));
	hello->member = qdb_get_u64(&r);
	hello->incarnation = qdb_get_u64(&r);
	hello->boot = qdb_get_u64(&r);
	hello->epoch = qdb_get_u64(&r);
	return qdb_reader_done(&r) &&
		(hello->purpose == QDB_FILES_CLONE || hello->purpose == QDB_FILES_REWIND);
}

bool
qdb_files_welcome_encode(const QdbFilesWelcome *welcome, uint8_t *buf, uint32_t *len)
{
	QdbWriter	w = {.buf = buf,.size = *len};

	qdb_put_u64(&w, welcome->system_identifier);
	qdb_put_u64(&w, welcome->epoch);
	qdb_put_u32(&w, welcome->timeline);
	qdb_put_u64(&w, welcome->flush);
	qdb_put_u32(&w, welcome->control_version);
	qdb_put_u32(&w, welcome->catalog_version);
	qdb_put_u32(&w, welcome->block_size);
	qdb_put_u32(&w, welcome->segment_blocks);
	qdb_put_u32(&w, welcome->wal_block_size);
	qdb_put_u32(&w, welcome->wal_segment_size);
	for (int i = 0; i < QDB_NLIMITS; i++)
		qdb_put_u32(&w, welcome->limits[i]);
	return qdb_writer_done(&w, len);
}

bool
qdb_files_welcome_decode(const uint8_t *buf, uint32_t len, QdbFilesWelcome *welcome)
{
	QdbReader	r = {.buf = buf,.size = len};

	memset(welcome, 0, sizeof(*welcome));
	welcome->system_identifier = qdb_get_u64(&r);
	welcome->epoch = qdb_get_u64(&r);
	welcome->timeline = qdb_get_u32(&r);
	welcome->flush = qdb_get_u64(&r);
	welcome->control_version = qdb_get_u32(&r);
	welcome->catalog_version = qdb_get_u32(&r);
	welcome->block_size = qdb_get_u32(&r);
	welcome->segment_blocks = qdb_get_u32(&r);
	welcome->wal_block_size = qdb_get_u32(&r);
	welcome->wal_segment_size = qdb_get_u32(&r);
	for (int i = 0; i < QDB_NLIMITS; i++)
		welcome->limits[i] = qdb_get_u32(&r);
	return qdb_reader_done(&r);
}

static void
put_relation(QdbWriter *w, const QdbRelationName *name)
{
	qdb_put_u32(w, name->tablespace);
	qdb_put_u32(w, name->database);
	qdb_put_u32(w, name->relation);
	qdb_put_u8(w, name->fork);
	qdb_put_u32(w, name->segment);
}

static void
get_relation(QdbReader *r, QdbRelationName *name)
{
	name->tablespace = qdb_get_u32(r);
	name->database = qdb_get_u32(r);
	name->relation = qdb_get_u32(r);
	name->fork = qdb_get_u8(r);
	name->segment = qdb_get_u32(r);
	if (!r->failed && !qdb_relation_name_ok(name))
		r->failed = true;
}

static void
put_range(QdbWriter *w, const QdbTransferRequest *request)
{
	qdb_put_u64(w, request->offset);
	qdb_put_u32(w, request->length);
}

static uint32_t
get_length(QdbReader *r)
{
	uint32_t	length = qdb_get_u32(r);

	if (length == 0 || length > QDB_TRANSFER_CHUNK)
		r->failed = true;
	return length;
}

static void
get_range(QdbReader *r, QdbTransferRequest *request)
{
	request->offset = qdb_get_u64(r);
	request->length = get_length(r);
	if (request->offset > (uint64_t) 1 << 62)
		r->failed = true;
}

static bool
set_misfit(QdbMisfit *misfit, QdbMisfitKind kind, const char *what, uint32_t theirs, uint32_t ours)
{
	misfit->kind = kind;
	misfit->what = what;
	misfit->theirs = theirs;
	misfit->ours = ours;
	return true;
}

/*
 * hazards 34: a standby below the primary's limits stops replaying.  All else has to be equal, or the
 * files mean something else here.
 */
bool
qdb_welcome_misfit(const QdbFilesWelcome *theirs, const QdbFilesWelcome *ours, QdbMisfit *misfit)
{
	static const char *const names[QDB_NLIMITS] = {"max_connections", "max_worker_processes",
	"max_wal_senders", "max_prepared_transactions", "max_locks_per_transaction"};
	const struct
	{
		QdbMisfitKind kind;
		const char *what;
		uint32_t	theirs;
		uint32_t	ours;
	}			equals[] = {
		{QDB_MISFIT_BUILD, "control file version", theirs->control_version, ours->control_version},
		{QDB_MISFIT_BUILD, "catalog version", theirs->catalog_version, ours->catalog_version},
		{QDB_MISFIT_BUILD, "block size", theirs->block_size, ours->block_size},
		{QDB_MISFIT_BUILD, "segment size", theirs->segment_blocks, ours->segment_blocks},
		{QDB_MISFIT_BUILD, "WAL block size", theirs->wal_block_size, ours->wal_block_size},
		{QDB_MISFIT_INITDB, "WAL segment size", theirs->wal_segment_size, ours->wal_segment_size}
	};

	for (int i = 0; i < QDB_NLIMITS; i++)
	{
		if (ours->limits[i] < theirs->limits[i])
			return set_misfit(misfit, QDB_MISFIT_LIMIT, names[i], theirs->limits[i], ours->limits[i]);
	}
	for (size_t i = 0; i < sizeof(equals) / sizeof(equals[0]); i++)
	{
		if (equals[i].theirs != equals[i].ours)
			return set_misfit(misfit, equals[i].kind, equals[i].what, equals[i].theirs, equals[i].ours);
	}
	return false;
}

bool
qdb_transfer_request_encode(const QdbTransferRequest *request, uint8_t *buf, uint32_t *len)
{
	QdbWriter	w = {.buf = buf,.size = *len};

	qdb_put_u8(&w, request->kind);
	switch (request->kind)
	{
		case QDB_TRANSFER_MANIFEST:
			qdb_put_u8(&w, request->flag ? 1 : 0);
			qdb_put_u64(&w, request->lsn);
			break;
		case QDB_TRANSFER_FILE:
			qdb_put_u32(&w, request->id);
			put_range(&w, request);
			break;
		case QDB_TRANSFER_READ_MANIFEST:
			put_range(&w, request);
			break;
		case QDB_TRANSFER_RELATION:
			put_relation(&w, &request->relation);
			put_range(&w, request);
			break;
		case QDB_TRANSFER_BLOCKS:
			put_relation(&w, &request->relation);
			qdb_put_u8(&w, (uint8_t) request->nblocks);
			for (uint32_t i = 0; i < request->nblocks && i < QDB_TRANSFER_MAX_BLOCKS; i++)
				qdb_put_u32(&w, request->blocks[i]);
			break;
		case QDB_TRANSFER_WAL:
			qdb_put_u32(&w, request->timeline);
			qdb_put_u64(&w, request->lsn);
			qdb_put_u32(&w, request->length);
			break;
		case QDB_TRANSFER_HISTORY:
			qdb_put_u32(&w, request->timeline);
			break;
		default:
			break;
	}
	return qdb_writer_done(&w, len);
}

bool
qdb_transfer_request_decode(const uint8_t *buf, uint32_t len, QdbTransferRequest *request)
{
	QdbReader	r = {.buf = buf,.size = len};

	memset(request, 0, sizeof(*request));
	request->kind = qdb_get_u8(&r);
	switch (request->kind)
	{
		case QDB_TRANSFER_MANIFEST:
			request->flag = qdb_get_bool(&r);
			request->lsn = qdb_get_u64(&r);
			break;
		case QDB_TRANSFER_FILE:
			request->id = qdb_get_u32(&r);
			get_range(&r, request);
			break;
		case QDB_TRANSFER_READ_MANIFEST:
			get_range(&r, request);
			break;
		case QDB_TRANSFER_RELATION:
			get_relation(&r, &request->relation);
			get_range(&r, request);
			break;
		case QDB_TRANSFER_BLOCKS:
			get_relation(&r, &request->relation);
			request->nblocks = qdb_get_u8(&r);
			if (request->nblocks == 0 || request->nblocks > QDB_TRANSFER_MAX_BLOCKS ||
				request->relation.segment != 0)
				return false;
			for (uint32_t i = 0; i < request->nblocks; i++)
				request->blocks[i] = qdb_get_u32(&r);
			break;
		case QDB_TRANSFER_WAL:
			request->timeline = qdb_get_u32(&r);
			request->lsn = qdb_get_u64(&r);
			request->length = get_length(&r);
			break;
		case QDB_TRANSFER_HISTORY:
			request->timeline = qdb_get_u32(&r);
			break;
		case QDB_TRANSFER_CONTROL:
		case QDB_TRANSFER_POSITION:
			break;
		default:
			return false;
	}
	return qdb_reader_done(&r);
}

bool
qdb_manifest_info_encode(const QdbManifestInfo *info, uint8_t *buf, uint32_t *len)
{
	QdbWriter	w = {.buf = buf,.size = *len};

	qdb_put_u64(&w, info->length);
	qdb_put_u64(&w, info->nfiles);
	qdb_put_u64(&w, info->bytes);
	qdb_put_u32(&w, info->timeline);
	qdb_put_u64(&w, info->redo);
	qdb_put_u64(&w, info->checkpoint);
	qdb_put_u8(&w, info->resumed ? 1 : 0);
	return qdb_writer_done(&w, len);
}

bool
qdb_manifest_info_decode(const uint8_t *buf, uint32_t len, QdbManifestInfo *info)
{
	QdbReader	r = {.buf = buf,.size = len};

	memset(info, 0, sizeof(*info));
	info->length = qdb_get_u64(&r);
	info->nfiles = qdb_get_u64(&r);
	info->bytes = qdb_get_u64(&r);
	info->timeline = qdb_get_u32(&r);
	info->redo = qdb_get_u64(&r);
	info->checkpoint = qdb_get_u64(&r);
	info->resumed = qdb_get_bool(&r);
	return qdb_reader_done(&r);
}

bool
qdb_source_position_encode(const QdbSourcePosition *position, uint8_t *buf, uint32_t *len)
{
	QdbWriter	w = {.buf = buf,.size = *len};

	qdb_put_u64(&w, position->epoch);
	qdb_put_u32(&w, position->timeline);
	qdb_put_u64(&w, position->flush);
	qdb_put_u64(&w, position->quorum);
	return qdb_writer_done(&w, len);
}

bool
qdb_source_position_decode(const uint8_t *buf, uint32_t len, QdbSourcePosition *position)
{
	QdbReader	r = {.buf = buf,.size = len};

	memset(position, 0, sizeof(*position));
	position->epoch = qdb_get_u64(&r);
	position->timeline = qdb_get_u32(&r);
	position->flush = qdb_get_u64(&r);
	position->quorum = qdb_get_u64(&r);
	return qdb_reader_done(&r);
}

void
qdb_transfer_answer_begin(uint8_t *buf, uint32_t number, uint8_t status, uint32_t mask)
{
	QdbWriter	w = {.buf = buf,.size = QDB_TRANSFER_ANSWER_HEADER};

	qdb_put_u32(&w, number);
	qdb_put_u8(&w, status);
	qdb_put_u32(&w, mask);
}

bool
qdb_transfer_answer_decode(const uint8_t *buf, uint32_t len, QdbTransferAnswer *answer)
{
	QdbReader	r = {.buf = buf,.size = len};

	answer->number = qdb_get_u32(&r);
	answer->status = qdb_get_u8(&r);
	answer->mask = qdb_get_u32(&r);
	answer->length = (uint32_t) (r.size - r.pos);
	answer->data = qdb_get_bytes(&r, answer->length);
	return !r.failed && answer->length <= QDB_TRANSFER_CHUNK && answer->status <= QDB_TRANSFER_FAILED;
}

bool
qdb_manifest_entry_encode(const QdbManifestEntry *entry, uint8_t *buf, uint32_t *len)
{
	QdbWriter	w = {.buf = buf,.size = *len};

	qdb_put_u8(&w, entry->kind);
	switch (entry->kind)
	{
		case QDB_ENTRY_END:
			qdb_put_u64(&w, entry->size);
			break;
		case QDB_ENTRY_RELATION:
			put_relation(&w, &entry->relation);
			qdb_put_u64(&w, entry->size);
			break;
		case QDB_ENTRY_FILE:
			qdb_put_u32(&w, entry->id);
			qdb_put_u16(&w, entry->mode);
			qdb_put_u64(&w, entry->size);
			qdb_put_string(&w, entry->path);
			break;
		case QDB_ENTRY_DIRECTORY:
		case QDB_ENTRY_LOCALE:
			qdb_put_string(&w, entry->path);
			break;
		case QDB_ENTRY_TABLESPACE:
			qdb_put_u32(&w, entry->id);
			qdb_put_string(&w, entry->path);
			break;
		default:
			return false;
	}
	return qdb_writer_done(&w, len);
}

/* Is what was read one that may be? */
static bool
entry_ok(const QdbManifestEntry *entry)
{
	if (entry->kind == QDB_ENTRY_FILE || entry->kind == QDB_ENTRY_DIRECTORY)
		return qdb_served_path_ok(entry->path);
	if (entry->kind == QDB_ENTRY_TABLESPACE)
		return entry->id != 0 && entry->path[0] == '/';
	if (entry->kind == QDB_ENTRY_LOCALE)
		return entry->path[0] != '\0';
	return true;
}

int
qdb_manifest_entry_decode(const uint8_t *buf, uint32_t len, QdbManifestEntry *entry, uint32_t *used)
{
	QdbReader	r = {.buf = buf,.size = len};

	memset(entry, 0, sizeof(*entry));
	entry->kind = qdb_get_u8(&r);
	switch (entry->kind)
	{
		case QDB_ENTRY_END:
			entry->size = qdb_get_u64(&r);
			break;
		case QDB_ENTRY_RELATION:
			get_relation(&r, &entry->relation);
			entry->size = qdb_get_u64(&r);
			break;
		case QDB_ENTRY_FILE:
			entry->id = qdb_get_u32(&r);
			entry->mode = qdb_get_u16(&r);
			entry->size = qdb_get_u64(&r);
			qdb_get_string(&r, entry->path, sizeof(entry->path));
			break;
		case QDB_ENTRY_DIRECTORY:
		case QDB_ENTRY_LOCALE:
			qdb_get_string(&r, entry->path, sizeof(entry->path));
			break;
		case QDB_ENTRY_TABLESPACE:
			entry->id = qdb_get_u32(&r);
			qdb_get_string(&r, entry->path, sizeof(entry->path));
			break;
		default:
			return len == 0 ? 0 : -1;
	}

	/*
	 * What the longest entry needs is there: then a failure is no lack of
	 * bytes.
	 */
	if (r.failed)
		return len < QDB_MANIFEST_ENTRY_MAX ? 0 : -1;
	*used = (uint32_t) r.pos;
	return entry_ok(entry) ? 1 : -1;
}
