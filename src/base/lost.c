/*-------------------------------------------------------------------------
 *
 * lost.c
 *		Summaries of WAL that was thrown away: written by the resync worker,
 *		read by whoever asks for quantadb_lost_writes.
 *
 *-------------------------------------------------------------------------
 */
#include "base/lost.h"

#include "lib/stringinfo.h"
#include "storage/fd.h"

#define FORMAT		1
#define MAX_SUMMARY	(64 * 1024)

bool
qdb_lost_write(const QdbLostEntry *entry, const char *relations)
{
	char		path[MAXPGPATH];
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "format=%d\ntime=" INT64_FORMAT "\nepoch=" UINT64_FORMAT "\ntimeline=%u\n"
					 "start=" UINT64_FORMAT "\nend=" UINT64_FORMAT "\ntransactions=" UINT64_FORMAT
					 "\nfirst=" INT64_FORMAT "\nlast=" INT64_FORMAT "\nsaved=" UINT64_FORMAT "\nrelations=%s\n",
					 FORMAT, entry->time_us, entry->epoch, entry->timeline, entry->start, entry->end,
					 entry->transactions, entry->first_commit, entry->last_commit, entry->saved_bytes,
					 relations);
	snprintf(path, sizeof(path), QDB_LOST_DIR "/" UINT64_FORMAT "/summary", entry->number);
	return qdb_write_file(path, text.data, text.len);
}

static bool
read_entry(uint64 number, QdbLostEntry *entry)
{
	char		path[MAXPGPATH];
	char	   *buf;
	FILE	   *file;
	size_t		n;
	int			format;
	int			used = 0;

	snprintf(path, sizeof(path), QDB_LOST_DIR "/" UINT64_FORMAT "/summary", number);
	file = AllocateFile(path, PG_BINARY_R);
	if (file == NULL)
		return false;
	buf = palloc(MAX_SUMMARY);
	n = fread(buf, 1, MAX_SUMMARY - 1, file);
	FreeFile(file);
	buf[n] = '\0';
	memset(entry, 0, sizeof(*entry));
	entry->number = number;
	if (sscanf(buf, "format=%d\ntime=%ld\nepoch=%lu\ntimeline=%u\nstart=%lu\nend=%lu\ntransactions=%lu\n"
			   "first=%ld\nlast=%ld\nsaved=%lu\nrelations=%n", &format, &entry->time_us, &entry->epoch,
			   &entry->timeline, &entry->start, &entry->end, &entry->transactions,
			   &entry->first_commit, &entry->last_commit, &entry->saved_bytes, &used) != 10 ||
		format != FORMAT || used == 0)
	{
		pfree(buf);
		return false;
	}
	entry->relations = buf + used;
	entry->relations[strcspn(entry->relations, "\n")] = '\0';
	return true;
}

static int
compare_entries(const void *a, const void *b)
{
	uint64		x = ((const QdbLostEntry *) a)->number;
	uint64		y = ((const QdbLostEntry *) b)->number;

	return x < y ? -1 : x > y;
}

QdbLostEntry *
qdb_lost_list(int *n)
{
	int			room = 16;
	QdbLostEntry *entries = palloc(sizeof(QdbLostEntry) * room);
	DIR		   *dir = AllocateDir(QDB_LOST_DIR);
	struct dirent *file;

	*n = 0;
	/* None was lost yet. */
	if (dir == NULL && errno == ENOENT)
		return entries;
	while ((file = ReadDir(dir, QDB_LOST_DIR)) != NULL)
	{
		if (file->d_name[0] < '1' || file->d_name[0] > '9')
			continue;
		if (*n == room)
			entries = repalloc(entries, sizeof(QdbLostEntry) * (room *= 2));
		if (read_entry(strtoull(file->d_name, NULL, 10), &entries[*n]))
			(*n)++;
	}
	FreeDir(dir);
	qsort(entries, *n, sizeof(QdbLostEntry), compare_entries);
	return entries;
}
