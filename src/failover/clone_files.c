/*-------------------------------------------------------------------------
 *
 * clone_files.c
 *		Receive the files of a clone into the stage.
 *
 * Relations are listed once, when the clone begins, in a file of ours; an
 * interrupted clone goes on in that list, since all files that exist later are made
 * by replay.  All other files are small and come anew with each attempt.
 *
 * Tablespaces: a symbolic link in the stage points to where the data will stay,
 * so that it is written there at once.  That is the primary's location if nothing
 * is there on this machine, else a new folder inside of it: what lies there may be
 * this server's old data, or another node's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <dirent.h>
#include <fcntl.h>
#include <locale.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "catalog/catalog.h"
#include "catalog/pg_tablespace_d.h"
#include "common/file_perm.h"
#include "common/relpath.h"
#include "failover/clone.h"
#include "failover/wal_files.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/backendid.h"
#include "storage/fd.h"

#define SAVE_BYTES			(16 * 1024 * 1024)
#define SAVE_US				INT64CONST(60000000)	/* the holder hangs up on
													 * who is silent */
#define SPARE_BYTES			(64 * 1024 * 1024)	/* WAL, journal */
#define MAX_SPACES			1024

/* Bytes that will lie on the file system of path. */
typedef struct SpaceNeed
{
	Oid			oid;			/* InvalidOid: the data directory */
	uint64		bytes;
} SpaceNeed;

typedef struct FileSink
{
	QdbClone   *clone;
	FILE	   *relations;		/* first attempt: list of relations */
	bool		want_files;		/* this pass asks for the files, not the
								 * folders */
	SpaceNeed	needs[MAX_SPACES];
	int			nneeds;
	StringInfoData files;		/* encoded FILE entries of this attempt */

	/* The file that is being written. */
	int			fd;
	char		path[MAXPGPATH];
	uint64		done;			/* bytes for the progress */
	uint64		skip;			/* of the next relation, which is begun */
	uint64		begin;			/* where the current one is taken from */
	uint64		asked;			/* since the position was asked for */
	int64		asked_us;		/* when that was */
	QdbCloneState pending;		/* to be saved once a quorum has its reach */
} FileSink;

static bool
fail_errno(QdbClone *clone, const char *what, const char *path)
{
	return qdb_fetch_fail(clone->fetch, "could not %s \"%s\": %m", what, path);
}

/* ---- folders and tablespaces ---- */

static bool
make_folder(QdbClone *clone, const char *path)
{
	char		staged[MAXPGPATH];

	snprintf(staged, sizeof(staged), QDB_CLONE_DIR "/%s", path);
	if (pg_mkdir_p(staged, pg_dir_create_mode) != 0 && errno != EEXIST)
		return fail_errno(clone, "create directory", path);
	return true;
}

static bool
is_empty_folder(const char *path)
{
	DIR		   *dir = opendir(path);
	struct dirent *entry;
	bool		empty = true;

	if (dir == NULL)
		return errno == ENOENT;
	while ((entry = readdir(dir)) != NULL)
	{
		if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
			empty = false;
	}
	closedir(dir);
	return empty;
}

/* Where a tablespace will lie here. */
static void
choose_location(QdbClone *clone, const char *location, char *chosen)
{
	if (is_empty_folder(location))
		strlcpy(chosen, location, MAXPGPATH);
	else
		snprintf(chosen, MAXPGPATH, "%s/quantadb-%llu-%llx", location,
				 (unsigned long long) clone->self.member, (unsigned long long) qdb_unix_us());
}

static bool
make_tablespace(QdbClone *clone, Oid oid, const char *location)
{
	char		link[MAXPGPATH];
	char		chosen[MAXPGPATH];
	char		path[MAXPGPATH];
	struct stat st;

	snprintf(link, sizeof(link), QDB_CLONE_DIR "/pg_tblspc/%u", oid);
	if (lstat(link, &st) == 0)
		return true;			/* from an earlier attempt */
	choose_location(clone, location, chosen);
	strlcpy(path, chosen, sizeof(path));
	if (pg_mkdir_p(path, pg_dir_create_mode) != 0 && errno != EEXIST)
		return qdb_clone_refuse(clone, "Create the folder and give it to the user that PostgreSQL runs as.",
								"could not create directory \"%s\" for a tablespace: %m", chosen);
	if (access(chosen, W_OK | X_OK) != 0)
		return qdb_clone_refuse(clone, "Give the folder to the user that PostgreSQL runs as.",
								"could not write to directory \"%s\" of a tablespace: %m", chosen);
	if (strcmp(chosen, location) != 0)
		ereport(LOG, (errmsg("[failover] tablespace %u is put into \"%s\"", oid, chosen),
					  errdetail("\"%s\" is not empty on this machine.", location)));
	if (symlink(chosen, link) != 0)
		return fail_errno(clone, "create symbolic link", link);
	return true;
}

static void
add_need(FileSink *sink, Oid tablespace, uint64 bytes)
{
	int			i = 0;

	if (tablespace == DEFAULTTABLESPACE_OID || tablespace == GLOBALTABLESPACE_OID)
		tablespace = InvalidOid;
	while (i < sink->nneeds && sink->needs[i].oid != tablespace)
		i++;
	if (i == MAX_SPACES)
		i = 0;
	if (i == sink->nneeds)
		sink->needs[sink->nneeds++] = (SpaceNeed)
	{
		tablespace, 0
	};
	sink->needs[i].bytes += bytes;
}

static bool
check_space(FileSink *sink)
{
	for (int i = 0; i < sink->nneeds; i++)
	{
		char		path[MAXPGPATH] = QDB_STAGE_DIR;
		struct statvfs vfs;
		uint64		available;

		if (OidIsValid(sink->needs[i].oid))
			snprintf(path, sizeof(path), QDB_CLONE_DIR "/pg_tblspc/%u", sink->needs[i].oid);
		if (statvfs(path, &vfs) != 0)
			continue;			/* in place: counted below by the copying */
		available = (uint64) vfs.f_bavail * vfs.f_frsize;
		if (available < sink->needs[i].bytes + SPARE_BYTES)
			return qdb_clone_refuse(sink->clone,
									"Old and new data are there at the same time until the new is complete. Make room and join again.",
									"the cluster's data needs %llu MB in \"%s\", and %llu MB are free",
									(unsigned long long) ((sink->needs[i].bytes + SPARE_BYTES) >> 20), path,
									(unsigned long long) (available >> 20));
	}
	return true;
}

/* ---- the manifest ---- */

static bool
keep_entry(FileSink *sink, const QdbManifestEntry *entry)
{
	uint8		buf[QDB_MANIFEST_ENTRY_MAX];
	uint32		len = sizeof(buf);

	if (!qdb_manifest_entry_encode(entry, buf, &len))
		return qdb_fetch_fail(sink->clone->fetch, "malformed manifest");
	if (entry->kind == QDB_ENTRY_FILE)
		appendBinaryStringInfo(&sink->files, (char *) buf, len);
	else if (sink->relations != NULL && fwrite(buf, len, 1, sink->relations) != 1)
		return fail_errno(sink->clone, "write file", QDB_CLONE_RELATIONS);
	return true;
}

/* Without it every session in the databases that use it would be refused. */
static bool
check_locale(QdbClone *clone, const char *name)
{
	locale_t	locale = newlocale(LC_ALL_MASK, name, (locale_t) 0);

	if (locale == (locale_t) 0)
		return qdb_clone_refuse(clone, "Install it in the operating system (Debian: dpkg-reconfigure locales), and join again.",
								"a database of the cluster uses the locale \"%s\", which this machine does not have",
								name);
	freelocale(locale);
	return true;
}

static bool
take_entry(QdbFetch *fetch, const QdbManifestEntry *entry, void *arg)
{
	FileSink   *sink = arg;

	switch ((QdbEntryKind) entry->kind)
	{
		case QDB_ENTRY_DIRECTORY:
			return make_folder(sink->clone, entry->path);
		case QDB_ENTRY_TABLESPACE:
			return make_tablespace(sink->clone, entry->id, entry->path);
		case QDB_ENTRY_LOCALE:
			return check_locale(sink->clone, entry->path);
		case QDB_ENTRY_RELATION:
			add_need(sink, entry->relation.tablespace, entry->size);
			return keep_entry(sink, entry);
		case QDB_ENTRY_FILE:
			add_need(sink, InvalidOid, entry->size);
			return keep_entry(sink, entry);
		default:
			return true;
	}
}

static bool
take_manifest(QdbClone *clone, FileSink *sink)
{
	bool		ok;

	initStringInfo(&sink->files);
	if (!clone->resumed)
	{
		sink->relations = AllocateFile(QDB_CLONE_RELATIONS, PG_BINARY_W);
		if (sink->relations == NULL)
			return fail_errno(clone, "create file", QDB_CLONE_RELATIONS);
	}
	ok = qdb_fetch_manifest(clone->fetch, &clone->info, take_entry, sink);
	if (sink->relations != NULL && FreeFile(sink->relations) != 0 && ok)
		ok = fail_errno(clone, "write file", QDB_CLONE_RELATIONS);
	sink->relations = NULL;
	/* What an interrupted clone has fetched is on the disk already. */
	return ok && (clone->resumed || check_space(sink));
}

/* ---- file content ---- */

static void
close_file(FileSink *sink)
{
	if (sink->fd >= 0)
		close(sink->fd);
	sink->fd = -1;
	sink->path[0] = '\0';
}

static bool
open_file(FileSink *sink, const char *path, uint16 mode)
{
	char		staged[MAXPGPATH];

	if (sink->fd >= 0 && strcmp(path, sink->path) == 0)
		return true;
	close_file(sink);
	snprintf(staged, sizeof(staged), QDB_CLONE_DIR "/%s", path);
	sink->fd = open(staged, O_WRONLY | O_CREAT | O_NOFOLLOW | PG_BINARY | O_CLOEXEC,
					mode != 0 ? mode & pg_file_create_mode : pg_file_create_mode);
	if (sink->fd < 0)
		return fail_errno(sink->clone, "create file", staged);
	strlcpy(sink->path, path, sizeof(sink->path));
	return true;
}

static bool
write_bytes(FileSink *sink, const uint8 *data, uint32 length, uint64 offset)
{
	while (length > 0)
	{
		ssize_t		n;

		errno = 0;
		n = pg_pwrite(sink->fd, data, length, (off_t) offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
		{
			if (errno == 0)
				errno = ENOSPC;
			return fail_errno(sink->clone, "write file", sink->path);
		}
		data += n;
		length -= n;
		offset += n;
	}
	return true;
}

static void
relation_path(const QdbRelationName *name, char *path)
{
	char	   *base = GetRelationPath(name->database, name->tablespace, name->relation,
									   InvalidBackendId, (ForkNumber) name->fork);

	if (name->segment == 0)
		strlcpy(path, base, MAXPGPATH);
	else
		snprintf(path, MAXPGPATH, "%s.%u", base, name->segment);
	pfree(base);
}

static void
note_progress(FileSink *sink, uint32 bytes)
{
	sink->done += bytes;
	qdb_clone_progress(sink->clone, sink->done);
}

/* The holder's; the answers before it have read nothing that it had not flushed by now. */
static bool
use_position(FileSink *sink, QdbFetch *fetch, const QdbSourcePosition *position)
{
	if (position->epoch != sink->clone->welcome.epoch)
		return qdb_fetch_fail(fetch, "the source is in another epoch");
	if (sink->pending.reach != InvalidXLogRecPtr && position->quorum >= sink->pending.reach)
	{
		qdb_clone_save(&sink->pending);
		sink->pending.reach = InvalidXLogRecPtr;
	}
	if (sink->pending.reach == InvalidXLogRecPtr)
	{
		sink->pending = sink->clone->state;
		sink->pending.reach = position->flush;
		sink->pending.reach_timeline = position->timeline;
	}
	return true;
}

static bool
take_position(QdbFetch *fetch, const QdbTransferRequest *request, const QdbTransferAnswer *answer, void *arg)
{
	QdbSourcePosition position;

	if (answer->status != QDB_TRANSFER_OK ||
		!qdb_source_position_decode(answer->data, answer->length, &position))
		return qdb_fetch_fail(fetch, "malformed answer");
	return use_position(arg, fetch, &position);
}

/* Between the other requests, or on the holder's own connection and at once. */
static bool
ask_position(FileSink *sink)
{
	QdbClone   *clone = sink->clone;
	QdbTransferRequest request = {.kind = QDB_TRANSFER_POSITION};

	sink->asked = 0;
	sink->asked_us = qdb_now_us();
	if (clone->primary != clone->fetch)
	{
		QdbSourcePosition position;

		return qdb_fetch_position(clone->primary, &position) &&
			use_position(sink, clone->primary, &position);
	}
	return qdb_fetch_ask(sink->clone->fetch, &request, take_position, sink);
}

/* id of a request for a relation: not 0 for its last piece. */
static bool
take_piece(QdbFetch *fetch, const QdbTransferRequest *request, const QdbTransferAnswer *answer, void *arg)
{
	FileSink   *sink = arg;
	QdbCloneState *state = &sink->clone->state;
	char		path[MAXPGPATH];

	if (answer->length > request->length)
		return qdb_fetch_fail(fetch, "an answer is too long");
	relation_path(&request->relation, path);


	/*
	 * Dropped since then: replay knows it too.  An interrupted attempt may
	 * have left more of it than there is now.
	 */
	if (answer->status == QDB_TRANSFER_OK &&
		(!open_file(sink, path, 0) ||
		 (request->offset == sink->begin && ftruncate(sink->fd, (off_t) sink->begin) != 0) ||
		 !write_bytes(sink, answer->data, answer->length, request->offset)))
		return qdb_fetch_fail(fetch, "could not write file \"%s\": %m", path);
	state->piece = request->offset + request->length;
	state->bytes_done += request->length;
	if (request->id != 0)
	{
		close_file(sink);
		state->offset += request->id;
		state->piece = sink->begin = 0;
	}
	note_progress(sink, request->length);
	return true;
}

/* length: of the entry in the list. */
static bool
ask_relation(FileSink *sink, const QdbManifestEntry *entry, uint32 length)
{
	QdbTransferRequest request = {.kind = QDB_TRANSFER_RELATION,.relation = entry->relation,
	.offset = sink->skip};
	uint64		left = entry->size - Min(entry->size, sink->skip);

	sink->skip = 0;
	do
	{
		request.length = Min(Max(left, 1), QDB_TRANSFER_CHUNK);
		left -= Min(left, request.length);
		/* Not sent: names the end of an entry to take_piece. */
		request.id = left == 0 ? length : 0;
		if (!qdb_fetch_ask(sink->clone->fetch, &request, take_piece, sink))
			return false;
		request.offset += request.length;
		sink->asked += request.length;
		if ((sink->asked >= SAVE_BYTES || qdb_now_us() - sink->asked_us > SAVE_US) && !ask_position(sink))
			return false;
	} while (left > 0);
	return true;
}

static bool
ask_list(FileSink *sink, FILE *list)
{
	uint8		buf[QDB_MANIFEST_ENTRY_MAX];
	uint32		have = 0;

	for (;;)
	{
		QdbManifestEntry entry;
		uint32		used = 0;
		int			rc;

		CHECK_FOR_INTERRUPTS();
		have += fread(buf + have, 1, sizeof(buf) - have, list);
		if (have == 0)
			return true;
		rc = qdb_manifest_entry_decode(buf, have, &entry, &used);
		if (rc <= 0 || entry.kind != QDB_ENTRY_RELATION)
			return qdb_fetch_fail(sink->clone->fetch, "the list of relations is damaged");
		have -= used;
		memmove(buf, buf + used, have);
		if (!ask_relation(sink, &entry, used))
			return false;
	}
}

static bool
fetch_relations(FileSink *sink)
{
	QdbCloneState *state = &sink->clone->state;
	FILE	   *list = AllocateFile(QDB_CLONE_RELATIONS, PG_BINARY_R);
	bool		ok;

	if (list == NULL || fseeko(list, (off_t) state->offset, SEEK_SET) != 0)
		return fail_errno(sink->clone, "read file", QDB_CLONE_RELATIONS);
	sink->done = state->bytes_done;
	sink->skip = sink->begin = state->piece;
	ok = ask_position(sink) && ask_list(sink, list) && ask_position(sink) &&
		qdb_fetch_finish(sink->clone->fetch);
	FreeFile(list);
	close_file(sink);
	return ok;
}

/* request->lsn carries where the entry lies in sink->files. */
static bool
take_file(QdbFetch *fetch, const QdbTransferRequest *request, const QdbTransferAnswer *answer, void *arg)
{
	FileSink   *sink = arg;
	QdbManifestEntry entry;
	uint32		used;

	if (answer->length > request->length ||
		qdb_manifest_entry_decode((uint8 *) sink->files.data + request->lsn,
								  sink->files.len - request->lsn, &entry, &used) != 1)
		return qdb_fetch_fail(fetch, "malformed answer");
	if (answer->status == QDB_TRANSFER_OK &&
		(!open_file(sink, entry.path, entry.mode) ||
		 (request->offset == 0 && ftruncate(sink->fd, 0) != 0) ||
		 !write_bytes(sink, answer->data, answer->length, request->offset)))
		return qdb_fetch_fail(fetch, "could not write file \"%s\": %m", entry.path);
	note_progress(sink, answer->length);
	return true;
}

static bool
fetch_files(FileSink *sink)
{
	uint32		pos = 0;

	while (pos < sink->files.len)
	{
		QdbTransferRequest request = {.kind = QDB_TRANSFER_FILE,.lsn = pos};
		QdbManifestEntry entry;
		uint32		used;

		if (qdb_manifest_entry_decode((uint8 *) sink->files.data + pos, sink->files.len - pos,
									  &entry, &used) != 1)
			return qdb_fetch_fail(sink->clone->fetch, "malformed manifest");
		pos += used;
		if (strcmp(entry.path, "PG_VERSION") == 0)
			continue;			/* the same here */
		request.id = entry.id;
		do
		{
			request.length = Min(Max(entry.size, 1), QDB_TRANSFER_CHUNK);
			if (!qdb_fetch_ask(sink->clone->fetch, &request, take_file, sink))
				return false;
			request.offset += request.length;
			entry.size -= Min(entry.size, request.length);
		} while (entry.size > 0);
	}
	return qdb_fetch_finish(sink->clone->fetch);
}

bool
qdb_clone_files(QdbClone *clone)
{
	FileSink   *sink = palloc0(sizeof(FileSink));
	bool		ok;

	sink->clone = clone;
	sink->fd = -1;
	ok = make_folder(clone, "pg_wal") && make_folder(clone, "pg_tblspc") &&
		take_manifest(clone, sink);
	if (!clone->resumed)
		clone->state.bytes_total = clone->info.bytes;
	if (ok)
		qdb_clone_copies();
	ok = ok && fetch_relations(sink) && fetch_files(sink);
	close_file(sink);
	pfree(sink->files.data != NULL ? sink->files.data : palloc(1));
	pfree(sink);
	return ok;
}
