/*-------------------------------------------------------------------------
 *
 * rewind_files.c
 *		Compare this node's files with the source's and fetch what differs.
 *
 * A relation that neither side changed past the fork is equal once the common WAL has been
 * replayed.  Of one that this node changed: the blocks that its WAL names, what the
 * source's file has beyond ours, and all of the other forks.  Files that hold no relation
 * are small and are fetched whole.  What the source does not have goes.
 *
 * A file may vanish or shrink at the source after the list was made: WAL before the
 * minimum recovery point says so, and replay does the same here.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog_internal.h"
#include "catalog/catalog.h"
#include "catalog/pg_tablespace_d.h"
#include "common/file_perm.h"
#include "common/relpath.h"
#include "failover/rewind.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/wait_event.h"

/* A file or folder of the source. */
typedef struct SourceFile
{
	char		path[QDB_SERVED_PATH_SIZE]; /* key */
	uint8		kind;			/* QdbEntryKind */
	uint32		id;
	uint64		size;
	QdbRelationName relation;
} SourceFile;

/* A file that is being fetched into the stage; kept until all has come. */
typedef struct Fetched
{
	struct Fetched *next;
	char		path[QDB_SERVED_PATH_SIZE];
	char		staged[MAXPGPATH];
	bool		whole;
	bool		gone;
	uint64		nblocks;		/* blocks that have come, for a patch */
	uint32		first_block;	/* of the segment */
	File		file;
} Fetched;

typedef struct FileWork
{
	QdbRewind  *rewind;
	HTAB	   *files;			/* SourceFile */
	List	   *tablespaces;	/* QdbManifestEntry */
	Fetched    *fetched;		/* newest first */
} FileWork;

static void
report_error(const char *what, const char *path)
{
	ereport(ERROR, (errcode_for_file_access(), errmsg("could not %s \"%s\": %m", what, path)));
}

/* ---- the source's list ---- */

static void
relation_path(const QdbRelationName *name, char *path)
{
	char	   *base = GetRelationPath(name->database, name->tablespace, name->relation,
									   InvalidBackendId, (ForkNumber) name->fork);

	if (name->segment == 0)
		strlcpy(path, base, QDB_SERVED_PATH_SIZE);
	else
		snprintf(path, QDB_SERVED_PATH_SIZE, "%s.%u", base, name->segment);
	pfree(base);
}

static bool
take_entry(QdbFetch *fetch, const QdbManifestEntry *entry, void *arg)
{
	FileWork   *work = arg;
	SourceFile *file;
	char		path[QDB_SERVED_PATH_SIZE] = "";

	if (entry->kind == QDB_ENTRY_END || entry->kind == QDB_ENTRY_LOCALE)
		return true;
	if (entry->kind == QDB_ENTRY_TABLESPACE)
	{
		QdbManifestEntry *copy = palloc(sizeof(*copy));

		*copy = *entry;
		work->tablespaces = lappend(work->tablespaces, copy);
		return true;
	}
	if (entry->kind == QDB_ENTRY_RELATION)
		relation_path(&entry->relation, path);
	else if (strlcpy(path, entry->path, sizeof(path)) >= sizeof(path))
		return qdb_fetch_fail(fetch, "a path of the source is too long");
	file = hash_search(work->files, path, HASH_ENTER, NULL);
	file->kind = entry->kind;
	file->id = entry->id;
	file->size = entry->size;
	file->relation = entry->relation;
	return true;
}

/* ---- fetching ---- */

static Fetched *
begin_fetch(FileWork *work, const SourceFile *source, bool whole)
{
	Fetched    *item = palloc0(sizeof(Fetched));

	strlcpy(item->path, source->path, sizeof(item->path));
	snprintf(item->staged, sizeof(item->staged), QDB_REWIND_DIR "/%u", work->rewind->next_file++);
	item->whole = whole;
	item->first_block = source->relation.segment * RELSEG_SIZE;
	item->next = work->fetched;
	work->fetched = item;
	item->file = PathNameOpenFile(item->staged, O_RDWR | O_CREAT | O_TRUNC | PG_BINARY);
	if (item->file < 0)
		report_error("create file", item->staged);
	return item;
}

static void
write_item(Fetched *item, const void *data, int length, off_t offset)
{
	int			n = FileWrite(item->file, unconstify(void *, data), length, offset, PG_WAIT_EXTENSION);

	if (n != length)
	{
		if (n >= 0)
			errno = ENOSPC;
		report_error("write file", item->staged);
	}
}

static bool
take_range(QdbFetch *fetch, const QdbTransferRequest *request, const QdbTransferAnswer *answer, void *arg)
{
	Fetched    *item = arg;

	if (answer->status == QDB_TRANSFER_GONE)
		item->gone = true;
	else if (answer->length > 0)
		write_item(item, answer->data, answer->length, request->offset);
	return true;
}

static bool
take_blocks(QdbFetch *fetch, const QdbTransferRequest *request, const QdbTransferAnswer *answer, void *arg)
{
	Fetched    *item = arg;
	const uint8 *data = answer->data;

	for (uint32 i = 0; i < request->nblocks; i++)
	{
		BlockNumber block = request->blocks[i] - item->first_block;
		off_t		offset = (off_t) item->nblocks * QDB_STAGED_BLOCK_SIZE;

		if ((answer->mask & (uint32) 1 << i) == 0)
			continue;
		if (data + BLCKSZ > answer->data + answer->length)
			return qdb_fetch_fail(fetch, "blocks are missing in an answer");
		write_item(item, &block, sizeof(block), offset);
		write_item(item, data, BLCKSZ, offset + sizeof(block));
		data += BLCKSZ;
		item->nblocks++;
	}
	return true;
}

static void
fetch_whole(FileWork *work, const SourceFile *source)
{
	Fetched    *item = begin_fetch(work, source, true);
	QdbTransferRequest request = {0};

	request.kind = source->kind == QDB_ENTRY_RELATION ? QDB_TRANSFER_RELATION : QDB_TRANSFER_FILE;
	if (source->kind == QDB_ENTRY_RELATION)
		request.relation = source->relation;
	else
		request.id = source->id;
	work->rewind->bytes_total += source->size;
	/* At least once, so that an empty file is known to exist. */
	do
	{
		request.length = Min(Max(source->size - request.offset, 1), QDB_TRANSFER_CHUNK);
		qdb_rewind_need(work->rewind, qdb_fetch_ask(work->rewind->fetch, &request, take_range, item));
		request.offset += request.length;
	} while (request.offset < source->size);
}

static void
send_blocks(FileWork *work, Fetched *item, QdbTransferRequest *request)
{
	if (request->nblocks == 0)
		return;
	qdb_rewind_need(work->rewind, qdb_fetch_ask(work->rewind->fetch, request, take_blocks, item));
	request->nblocks = 0;
}

/* The blocks of one segment: those in the map and all from tail_from on. */
static void
fetch_blocks(FileWork *work, const SourceFile *source, const QdbSegmentChange *change,
			 const QdbDivergedSegment *diverged)
{
	QdbTransferRequest request = {.kind = QDB_TRANSFER_BLOCKS};
	Fetched    *item = NULL;

	request.relation = source->relation;
	request.relation.segment = 0;
	for (uint32 block = 0; block < change->nblocks; block++)
	{
		bool		named = diverged != NULL && (diverged->bits[block / 8] & (1 << block % 8)) != 0;

		if (!named && block < change->tail_from)
			continue;
		if (item == NULL)
			item = begin_fetch(work, source, false);
		work->rewind->bytes_total += BLCKSZ;
		request.blocks[request.nblocks++] = item->first_block + block;
		if (request.nblocks == QDB_TRANSFER_MAX_BLOCKS)
			send_blocks(work, item, &request);
	}
	if (item != NULL)
		send_blocks(work, item, &request);
}

/* ---- one file of the source ---- */

static void
compare_main_fork(FileWork *work, const SourceFile *source, const QdbDivergedRelation *relation,
				  const struct stat *st, bool exists, bool recreated)
{
	QdbRewind  *rewind = work->rewind;
	QdbSegmentView view = {.exists = exists,.source_size = source->size,.cut_block = QDB_NO_BLOCK};
	QdbSegmentKey key;
	QdbDivergedSegment *diverged;
	QdbSegmentChange change;

	if (exists)
		view.local_size = st->st_size;
	view.recreated = recreated;
	if (relation != NULL && relation->cut != InvalidBlockNumber)
	{
		BlockNumber first = source->relation.segment * RELSEG_SIZE;

		if (relation->cut < first + RELSEG_SIZE)
			view.cut_block = relation->cut > first ? relation->cut - first : 0;
	}
	change = qdb_rewind_segment(&view, BLCKSZ);
	if (change.whole)
	{
		fetch_whole(work, source);
		return;
	}
	if (change.truncate)
		qdb_stage_add_truncate(rewind->stage, source->path, source->size);
	memset(&key, 0, sizeof(key));
	key.node.spcNode = source->relation.tablespace;
	key.node.dbNode = source->relation.database;
	key.node.relNode = source->relation.relation;
	key.segment = source->relation.segment;
	diverged = hash_search(rewind->segments, &key, HASH_FIND, NULL);
	fetch_blocks(work, source, &change, diverged);
}

static void
compare_relation(FileWork *work, const SourceFile *source)
{
	QdbRewind  *rewind = work->rewind;
	RelFileNode node = {source->relation.tablespace, source->relation.database, source->relation.relation};
	QdbDatabaseKey database = {node.spcNode, node.dbNode};
	QdbDivergedRelation *relation = hash_search(rewind->relations, &node, HASH_FIND, NULL);
	bool		recreated = (relation != NULL && relation->recreated) ||
	hash_search(rewind->databases, &database, HASH_FIND, NULL) != NULL;
	struct stat st;
	bool		exists = stat(source->path, &st) == 0;

	if (!exists && errno != ENOENT)
		report_error("stat file", source->path);
	if (source->relation.fork == MAIN_FORKNUM)
		compare_main_fork(work, source, relation, &st, exists, recreated);
	else if (!exists || recreated || relation != NULL)
		fetch_whole(work, source);
}

static void
compare_folder(FileWork *work, const SourceFile *source)
{
	struct stat st;

	if (stat(source->path, &st) != 0)
		qdb_stage_add_mkdir(work->rewind->stage, source->path);
}

/* ---- what the source does not have ---- */

static void
remove_extra(FileWork *work, const char *path)
{
	DIR		   *dir = AllocateDir(path);
	struct dirent *entry;

	while ((entry = ReadDir(dir, path)) != NULL)
	{
		char		child[MAXPGPATH];
		struct stat st;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		CHECK_FOR_INTERRUPTS();
		snprintf(child, sizeof(child), "%s/%s", path, entry->d_name);
		if (strcmp(child, XLOG_CONTROL_FILE) == 0)
			continue;
		if (lstat(child, &st) != 0)
		{
			if (errno == ENOENT)
				continue;
			report_error("stat file", child);
		}
		if (strlen(child) < QDB_SERVED_PATH_SIZE &&
			hash_search(work->files, child, HASH_FIND, NULL) != NULL)
		{
			if (S_ISDIR(st.st_mode))
				remove_extra(work, child);
		}
		else if (S_ISDIR(st.st_mode))
			qdb_stage_add_remove_tree(work->rewind->stage, child);
		else
			qdb_stage_add_remove(work->rewind->stage, child);
	}
	FreeDir(dir);
}

static bool
has_tablespace(const FileWork *work, const char *name)
{
	ListCell   *cell;

	foreach(cell, work->tablespaces)
	{
		if (((QdbManifestEntry *) lfirst(cell))->id == strtoul(name, NULL, 10))
			return true;
	}
	return false;
}

/* Tablespaces outside are links: their content is looked at through them. */
static void
compare_tablespaces(FileWork *work)
{
	DIR		   *dir = AllocateDir("pg_tblspc");
	struct dirent *entry;
	ListCell   *cell;

	while ((entry = ReadDir(dir, "pg_tblspc")) != NULL)
	{
		char		path[MAXPGPATH];
		char		version[MAXPGPATH];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "pg_tblspc/%s", entry->d_name);
		snprintf(version, sizeof(version), "%s/%s", path, TABLESPACE_VERSION_DIRECTORY);
		if (has_tablespace(work, entry->d_name) || hash_search(work->files, path, HASH_FIND, NULL) != NULL)
		{
			if (qdb_file_exists(version))
				remove_extra(work, version);
			continue;
		}
		qdb_stage_add_remove_tree(work->rewind->stage, version);
		qdb_stage_add_remove_tree(work->rewind->stage, path);
	}
	FreeDir(dir);
	foreach(cell, work->tablespaces)
	{
		QdbManifestEntry *space = lfirst(cell);
		char		path[MAXPGPATH];
		struct stat st;

		snprintf(path, sizeof(path), "pg_tblspc/%u", space->id);
		if (lstat(path, &st) == 0)
			continue;
		if (stat(space->path, &st) != 0 || !S_ISDIR(st.st_mode))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FILE),
					 errmsg("the folder \"%s\" of tablespace %u is not there", space->path, space->id),
					 errhint("Create it on this node, owned by the server's user.")));
		qdb_stage_add_symlink(work->rewind->stage, space->path, path);
	}
}

/* ---- all of it ---- */

/* What has come goes into the plan; an empty patch is none. */
static void
add_fetched(FileWork *work)
{
	for (Fetched *item = work->fetched; item != NULL; item = item->next)
	{
		FileClose(item->file);
		if (!item->whole && item->nblocks > 0)
			qdb_stage_add_blocks(work->rewind->stage, item->staged, item->path, item->nblocks);
		else if (item->whole && !item->gone)
			qdb_stage_add_put(work->rewind->stage, item->staged, item->path);
		else if (item->whole)
			qdb_stage_add_remove(work->rewind->stage, item->path);
	}
}

void
qdb_rewind_files(QdbRewind *rewind)
{
	FileWork	work = {.rewind = rewind};
	HASHCTL		ctl = {.keysize = QDB_SERVED_PATH_SIZE,.entrysize = sizeof(SourceFile),.hcxt = CurrentMemoryContext};
	QdbManifestInfo info;
	HASH_SEQ_STATUS scan;
	SourceFile *file;

	work.files = hash_create("files of the source", 1024, &ctl, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	qdb_rewind_need(rewind, qdb_fetch_prepare(rewind->fetch, false, InvalidXLogRecPtr, &info) &&
					qdb_fetch_manifest(rewind->fetch, &info, take_entry, &work));
	for (int i = 0; qdb_empty_folders[i] != NULL; i++)
		qdb_stage_add_empty_dir(rewind->stage, qdb_empty_folders[i]);
	compare_tablespaces(&work);
	for (int i = 0; qdb_served_folders[i] != NULL; i++)
	{
		if (strcmp(qdb_served_folders[i], "pg_tblspc") != 0)
			remove_extra(&work, qdb_served_folders[i]);
	}
	hash_seq_init(&scan, work.files);
	while ((file = hash_seq_search(&scan)) != NULL)
	{
		CHECK_FOR_INTERRUPTS();
		if (file->kind == QDB_ENTRY_DIRECTORY)
			compare_folder(&work, file);
		else if (file->kind == QDB_ENTRY_RELATION)
			compare_relation(&work, file);
		else
			fetch_whole(&work, file);
	}
	qdb_rewind_need(rewind, qdb_fetch_finish(rewind->fetch));
	add_fetched(&work);
}
