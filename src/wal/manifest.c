/*-------------------------------------------------------------------------
 *
 * manifest.c
 *		The list of all files that a source has.
 *
 * It has what qdb_served_path_ok allows, relations by their numbers.
 * Temporary relations and all forks but the init fork of unlogged ones are left
 * out.  A second file has the paths by number, of one size each, so that
 * the streamer finds one without reading the rest.
 *
 * Process: quantadb source.  It may raise errors.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/catalog.h"
#include "catalog/pg_database.h"
#include "catalog/pg_tablespace_d.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/reinit.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "wal/serve.h"

/* The manifest while it is written. */
static FILE *manifest;
static FILE *names;
static QdbManifestInfo *counts;
static uint32 next_id;

static FILE *
create_part(int slot, const char *form)
{
	char		path[MAXPGPATH];
	FILE	   *file;

	snprintf(path, sizeof(path), form, slot);
	file = AllocateFile(path, PG_BINARY_W);
	if (file == NULL)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create file \"%s\": %m", path)));
	return file;
}

static void
put_bytes(FILE *file, const void *data, size_t length)
{
	errno = 0;
	if (fwrite(data, 1, length, file) != length)
	{
		if (errno == 0)
			errno = ENOSPC;
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not write the manifest: %m")));
	}
}

static void
put_entry(QdbManifestEntry *entry)
{
	uint8		buf[QDB_MANIFEST_ENTRY_MAX];
	uint32		len = sizeof(buf);

	if (entry->kind == QDB_ENTRY_FILE)
	{
		char		path[QDB_SERVED_PATH_SIZE] = {0};

		strlcpy(path, entry->path, sizeof(path));
		entry->id = next_id++;
		put_bytes(names, path, sizeof(path));
	}
	if (!qdb_manifest_entry_encode(entry, buf, &len))
		elog(ERROR, "an entry of the manifest is too long");
	put_bytes(manifest, buf, len);
	counts->length += len;
	if (entry->kind == QDB_ENTRY_FILE || entry->kind == QDB_ENTRY_RELATION)
	{
		counts->nfiles++;
		counts->bytes += entry->size;
	}
}

static void
put_folder(const char *path)
{
	QdbManifestEntry entry = {.kind = QDB_ENTRY_DIRECTORY};

	if (!qdb_served_path_ok(path))
		return;
	strlcpy(entry.path, path, sizeof(entry.path));
	put_entry(&entry);
}

/* The number, fork and segment in a file name; false: no relation. */
static bool
parse_relation(const char *name, QdbRelationName *relation)
{
	int			oidchars;
	ForkNumber	fork;
	const char *dot = strchr(name, '.');

	if (!parse_filename_for_nontemp_relation(name, &oidchars, &fork))
		return false;
	relation->relation = (uint32) strtoul(name, NULL, 10);
	relation->fork = (uint8) fork;
	relation->segment = dot != NULL ? (uint32) strtoul(dot + 1, NULL, 10) : 0;
	return qdb_relation_name_ok(relation);
}

/* Relations of a database folder that have an init fork: unlogged ones. */
static HTAB *
find_unlogged(const char *folder)
{
	HASHCTL		ctl = {.keysize = sizeof(Oid),.entrysize = sizeof(Oid)};
	HTAB	   *table = hash_create("unlogged relations", 32, &ctl, HASH_ELEM | HASH_BLOBS);
	DIR		   *dir = AllocateDir(folder);
	struct dirent *entry;

	while ((entry = ReadDir(dir, folder)) != NULL)
	{
		int			oidchars;
		ForkNumber	fork;
		Oid			oid;

		if (!parse_filename_for_nontemp_relation(entry->d_name, &oidchars, &fork) || fork != INIT_FORKNUM)
			continue;
		oid = (Oid) strtoul(entry->d_name, NULL, 10);
		(void) hash_search(table, &oid, HASH_ENTER, NULL);
	}
	FreeDir(dir);
	return table;
}

/* tablespace 0: no relations lie here. */
static void
put_file(const char *path, const char *name, const struct stat *st, Oid tablespace, Oid database, HTAB *unlogged)
{
	QdbManifestEntry entry = {.size = st->st_size,.mode = st->st_mode & 0777};

	entry.relation.tablespace = tablespace;
	entry.relation.database = database;
	if (tablespace != InvalidOid && parse_relation(name, &entry.relation))
	{
		Oid			oid = entry.relation.relation;

		if (entry.relation.fork != INIT_FORKNUM && unlogged != NULL &&
			hash_search(unlogged, &oid, HASH_FIND, NULL) != NULL)
			return;
		entry.kind = QDB_ENTRY_RELATION;
	}
	else if (tablespace != InvalidOid && looks_like_temp_rel_name(name))
		return;
	else if (qdb_served_path_ok(path))
	{
		entry.kind = QDB_ENTRY_FILE;
		strlcpy(entry.path, path, sizeof(entry.path));
	}
	else
		return;
	put_entry(&entry);
}

/* Everything in a folder; databases lie directly below top when tablespace is set. */
static void
walk(const char *path, Oid tablespace, Oid database)
{
	HTAB	   *unlogged = OidIsValid(database) ? find_unlogged(path) : NULL;
	DIR		   *dir = AllocateDir(path);
	struct dirent *entry;

	put_folder(path);
	while ((entry = ReadDir(dir, path)) != NULL)
	{
		char		child[MAXPGPATH];
		struct stat st;

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		CHECK_FOR_INTERRUPTS();
		snprintf(child, sizeof(child), "%s/%s", path, entry->d_name);
		if (lstat(child, &st) != 0)
		{
			if (errno == ENOENT)
				continue;		/* removed since */
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not stat file \"%s\": %m", child)));
		}
		if (S_ISDIR(st.st_mode))
		{
			Oid			below = InvalidOid;

			if (OidIsValid(tablespace) && tablespace != GLOBALTABLESPACE_OID && !OidIsValid(database) &&
				strspn(entry->d_name, "0123456789") == strlen(entry->d_name))
				below = (Oid) strtoul(entry->d_name, NULL, 10);
			if (qdb_served_path_ok(child))
				walk(child, OidIsValid(below) ? tablespace : InvalidOid, below);
		}
		else if (S_ISREG(st.st_mode))
			put_file(child, entry->d_name, &st,
					 OidIsValid(database) || tablespace == GLOBALTABLESPACE_OID ? tablespace : InvalidOid,
					 database, unlogged);
	}
	FreeDir(dir);
	if (unlogged != NULL)
		hash_destroy(unlogged);
}

static void
put_tablespaces(void)
{
	DIR		   *dir = AllocateDir("pg_tblspc");
	struct dirent *entry;

	put_folder("pg_tblspc");
	while ((entry = ReadDir(dir, "pg_tblspc")) != NULL)
	{
		QdbManifestEntry space = {.kind = QDB_ENTRY_TABLESPACE};
		char		path[MAXPGPATH];
		char		version[MAXPGPATH];
		struct stat st;
		ssize_t		n;

		if (strspn(entry->d_name, "0123456789") != strlen(entry->d_name))
			continue;
		snprintf(path, sizeof(path), "pg_tblspc/%s", entry->d_name);
		space.id = (uint32) strtoul(entry->d_name, NULL, 10);
		n = readlink(path, space.path, sizeof(space.path) - 1);
		if (n >= (ssize_t) sizeof(space.path) - 1)
			elog(ERROR, "the location of tablespace %u is too long", space.id);
		if (n >= 0)
		{
			space.path[n] = '\0';
			put_entry(&space);
		}
		else
			put_folder(path);	/* in place */
		snprintf(version, sizeof(version), "%s/%s", path, TABLESPACE_VERSION_DIRECTORY);
		if (stat(version, &st) == 0)
			walk(version, space.id, InvalidOid);
	}
	FreeDir(dir);
}

static int
compare_names(const ListCell *a, const ListCell *b)
{
	return strcmp(lfirst(a), lfirst(b));
}

/*
 * What the databases want of the operating system.  Before any file is opened, since
 * the end of a transaction closes them.
 */
static List *
read_locales(void)
{
	static const AttrNumber columns[] = {Anum_pg_database_datcollate, Anum_pg_database_datctype};
	List	   *locales = NIL;
	Relation	relation;
	TableScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	relation = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(relation, 0, NULL);
	while ((tuple = heap_getnext(scan, ForwardScanDirection)) != NULL)
	{
		for (int i = 0; i < lengthof(columns); i++)
		{
			bool		isnull;
			Datum		value = heap_getattr(tuple, columns[i], RelationGetDescr(relation), &isnull);
			MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);

			if (!isnull)
				locales = lappend(locales, TextDatumGetCString(value));
			MemoryContextSwitchTo(old);
		}
	}
	table_endscan(scan);
	table_close(relation, AccessShareLock);
	CommitTransactionCommand();
	return locales;
}

/* Each once. */
static void
put_locales(List *locales)
{
	const char *last = "";
	ListCell   *cell;

	list_sort(locales, compare_names);
	foreach(cell, locales)
	{
		QdbManifestEntry entry = {.kind = QDB_ENTRY_LOCALE};
		const char *name = lfirst(cell);

		if (strcmp(name, last) == 0)
			continue;
		last = name;
		strlcpy(entry.path, name, sizeof(entry.path));
		put_entry(&entry);
	}
}

static void
put_top_file(const char *path)
{
	struct stat st;

	if (stat(path, &st) == 0)
		put_file(path, path, &st, InvalidOid, InvalidOid, NULL);
}

void
qdb_make_manifest(int slot, QdbManifestInfo *info)
{
	QdbManifestEntry end = {.kind = QDB_ENTRY_END};
	List	   *locales = read_locales();

	counts = info;
	manifest = create_part(slot, QDB_SOURCE_MANIFEST);
	names = create_part(slot, QDB_SOURCE_NAMES);
	for (int i = 0; qdb_empty_folders[i] != NULL; i++)
		put_folder(qdb_empty_folders[i]);
	put_locales(locales);
	put_tablespaces();
	for (int i = 0; qdb_served_folders[i] != NULL; i++)
	{
		const char *folder = qdb_served_folders[i];

		if (strcmp(folder, "pg_tblspc") == 0)
			continue;
		walk(folder, strcmp(folder, "base") == 0 ? DEFAULTTABLESPACE_OID :
			 strcmp(folder, "global") == 0 ? GLOBALTABLESPACE_OID : InvalidOid, InvalidOid);
	}
	put_top_file("PG_VERSION");
	end.size = info->bytes;
	put_entry(&end);
	if (FreeFile(manifest) != 0 || FreeFile(names) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not write the manifest: %m")));
}
