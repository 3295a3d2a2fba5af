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

#include "core/walk.h"

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

static void
walk_refusal(QdbWalker *w, void *fields)
{
	QdbStreamRefusal *refusal = fields;

	qdb_walk_bool(w, &refusal->retry);
	qdb_walk_text(w, refusal->text, sizeof(refusal->text));
}

bool
qdb_refusal_encode(const QdbStreamRefusal *refusal, uint8_t *buf, uint32_t *len)
{
	return qdb_encode(walk_refusal, refusal, buf, len);
}

bool
qdb_refusal_decode(const uint8_t *buf, uint32_t len, QdbStreamRefusal *refusal)
{
	return qdb_decode(walk_refusal, buf, len, refusal, sizeof(*refusal));
}

static void
walk_files_hello(QdbWalker *w, void *fields)
{
	QdbFilesHello *hello = fields;

	qdb_walk_u32(w, &hello->version);
	qdb_walk_u8(w, &hello->purpose);
	qdb_walk_text(w, hello->cluster_id, sizeof(hello->cluster_id));
	qdb_walk_u64(w, &hello->member);
	qdb_walk_u64(w, &hello->incarnation);
	qdb_walk_u64(w, &hello->boot);
	qdb_walk_u64(w, &hello->epoch);
	w->bad |= hello->purpose != QDB_FILES_CLONE && hello->purpose != QDB_FILES_REWIND;
}

bool
qdb_files_hello_encode(const QdbFilesHello *hello, uint8_t *buf, uint32_t *len)
{
	return qdb_encode(walk_files_hello, hello, buf, len);
}

bool
qdb_files_hello_decode(const uint8_t *buf, uint32_t len, QdbFilesHello *hello)
{
	return qdb_decode(walk_files_hello, buf, len, hello, sizeof(*hello));
}

static void
walk_files_welcome(QdbWalker *w, void *fields)
{
	QdbFilesWelcome *welcome = fields;

	qdb_walk_u64(w, &welcome->system_identifier);
	qdb_walk_u64(w, &welcome->epoch);
	qdb_walk_u32(w, &welcome->timeline);
	qdb_walk_u64(w, &welcome->flush);
	qdb_walk_u32(w, &welcome->control_version);
	qdb_walk_u32(w, &welcome->catalog_version);
	qdb_walk_u32(w, &welcome->block_size);
	qdb_walk_u32(w, &welcome->segment_blocks);
	qdb_walk_u32(w, &welcome->wal_block_size);
	qdb_walk_u32(w, &welcome->wal_segment_size);
	for (int i = 0; i < QDB_NLIMITS; i++)
		qdb_walk_u32(w, &welcome->limits[i]);
}

bool
qdb_files_welcome_encode(const QdbFilesWelcome *welcome, uint8_t *buf, uint32_t *len)
{
	return qdb_encode(walk_files_welcome, welcome, buf, len);
}

bool
qdb_files_welcome_decode(const uint8_t *buf, uint32_t len, QdbFilesWelcome *welcome)
{
	return qdb_decode(walk_files_welcome, buf, len, welcome, sizeof(*welcome));
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

static void
walk_relation(QdbWalker *w, QdbRelationName *name)
{
	qdb_walk_u32(w, &name->tablespace);
	qdb_walk_u32(w, &name->database);
	qdb_walk_u32(w, &name->relation);
	qdb_walk_u8(w, &name->fork);
	qdb_walk_u32(w, &name->segment);
	w->bad |= !qdb_relation_name_ok(name);
}

static void
walk_length(QdbWalker *w, uint32_t *length)
{
	qdb_walk_u32(w, length);
	w->bad |= *length == 0 || *length > QDB_TRANSFER_CHUNK;
}

static void
walk_range(QdbWalker *w, QdbTransferRequest *request)
{
	qdb_walk_u64(w, &request->offset);
	walk_length(w, &request->length);
	w->bad |= request->offset > (uint64_t) 1 << 62;
}

static void
walk_blocks(QdbWalker *w, QdbTransferRequest *request)
{
	uint32_t	n;

	walk_relation(w, &request->relation);
	n = qdb_walk_short_count(w, &request->nblocks, QDB_TRANSFER_MAX_BLOCKS);
	w->bad |= n == 0 || request->relation.segment != 0;
	for (uint32_t i = 0; i < n; i++)
		qdb_walk_u32(w, &request->blocks[i]);
}

static void
walk_request(QdbWalker *w, void *fields)
{
	QdbTransferRequest *request = fields;

	qdb_walk_u8(w, &request->kind);
	switch (request->kind)
	{
		case QDB_TRANSFER_MANIFEST:
			qdb_walk_bool(w, &request->flag);
			qdb_walk_u64(w, &request->lsn);
			break;
		case QDB_TRANSFER_FILE:
			qdb_walk_u32(w, &request->id);
			walk_range(w, request);
			break;
		case QDB_TRANSFER_READ_MANIFEST:
			walk_range(w, request);
			break;
		case QDB_TRANSFER_RELATION:
			walk_relation(w, &request->relation);
			walk_range(w, request);
			break;
		case QDB_TRANSFER_BLOCKS:
			walk_blocks(w, request);
			break;
		case QDB_TRANSFER_WAL:
			qdb_walk_u32(w, &request->timeline);
			qdb_walk_u64(w, &request->lsn);
			walk_length(w, &request->length);
			break;
		case QDB_TRANSFER_HISTORY:
			qdb_walk_u32(w, &request->timeline);
			break;
		case QDB_TRANSFER_CONTROL:
		case QDB_TRANSFER_POSITION:
			break;
		default:
			w->bad = true;
			break;
	}
}

bool
qdb_transfer_request_encode(const QdbTransferRequest *request, uint8_t *buf, uint32_t *len)
{
	return qdb_encode(walk_request, request, buf, len);
}

bool
qdb_transfer_request_decode(const uint8_t *buf, uint32_t len, QdbTransferRequest *request)
{
	return qdb_decode(walk_request, buf, len, request, sizeof(*request));
}

static void
walk_manifest_info(QdbWalker *w, void *fields)
{
	QdbManifestInfo *info = fields;

	qdb_walk_u64(w, &info->length);
	qdb_walk_u64(w, &info->nfiles);
	qdb_walk_u64(w, &info->bytes);
	qdb_walk_u32(w, &info->timeline);
	qdb_walk_u64(w, &info->redo);
	qdb_walk_u64(w, &info->checkpoint);
	qdb_walk_bool(w, &info->resumed);
}

bool
qdb_manifest_info_encode(const QdbManifestInfo *info, uint8_t *buf, uint32_t *len)
{
	return qdb_encode(walk_manifest_info, info, buf, len);
}

bool
qdb_manifest_info_decode(const uint8_t *buf, uint32_t len, QdbManifestInfo *info)
{
	return qdb_decode(walk_manifest_info, buf, len, info, sizeof(*info));
}

static void
walk_source_position(QdbWalker *w, void *fields)
{
	QdbSourcePosition *position = fields;

	qdb_walk_u64(w, &position->epoch);
	qdb_walk_u32(w, &position->timeline);
	qdb_walk_u64(w, &position->flush);
	qdb_walk_u64(w, &position->quorum);
}

bool
qdb_source_position_encode(const QdbSourcePosition *position, uint8_t *buf, uint32_t *len)
{
	return qdb_encode(walk_source_position, position, buf, len);
}

bool
qdb_source_position_decode(const uint8_t *buf, uint32_t len, QdbSourcePosition *position)
{
	return qdb_decode(walk_source_position, buf, len, position, sizeof(*position));
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

/* Is it one that may be? */
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

static void
walk_entry(QdbWalker *w, void *fields)
{
	QdbManifestEntry *entry = fields;

	qdb_walk_u8(w, &entry->kind);
	switch (entry->kind)
	{
		case QDB_ENTRY_END:
			qdb_walk_u64(w, &entry->size);
			break;
		case QDB_ENTRY_RELATION:
			walk_relation(w, &entry->relation);
			qdb_walk_u64(w, &entry->size);
			break;
		case QDB_ENTRY_FILE:
			qdb_walk_u32(w, &entry->id);
			qdb_walk_u16(w, &entry->mode);
			qdb_walk_u64(w, &entry->size);
			qdb_walk_text(w, entry->path, sizeof(entry->path));
			break;
		case QDB_ENTRY_DIRECTORY:
		case QDB_ENTRY_LOCALE:
			qdb_walk_text(w, entry->path, sizeof(entry->path));
			break;
		case QDB_ENTRY_TABLESPACE:
			qdb_walk_u32(w, &entry->id);
			qdb_walk_text(w, entry->path, sizeof(entry->path));
			break;
		default:
			w->bad = true;
			break;
	}
	w->bad |= !entry_ok(entry);
}

bool
qdb_manifest_entry_encode(const QdbManifestEntry *entry, uint8_t *buf, uint32_t *len)
{
	return qdb_encode(walk_entry, entry, buf, len);
}

int
qdb_manifest_entry_decode(const uint8_t *buf, uint32_t len, QdbManifestEntry *entry, uint32_t *used)
{
	QdbWalker	w = {.reader = {.buf = buf,.size = len}};

	memset(entry, 0, sizeof(*entry));
	walk_entry(&w, entry);

	/*
	 * What the longest entry needs is there: then a failure is no lack of
	 * bytes.
	 */
	if (w.reader.failed)
		return len < QDB_MANIFEST_ENTRY_MAX ? 0 : -1;
	*used = (uint32_t) w.reader.pos;
	return w.bad ? -1 : 1;
}
