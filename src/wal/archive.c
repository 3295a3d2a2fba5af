/*-------------------------------------------------------------------------
 *
 * archive.c
 *		Who writes to the WAL archive, and what: an archive module that stands
 *		before archive_command.
 *
 * A library in archive_library decides for each file whether it is archived, and how.  Ours
 * asks qdb_judge_archive and hands on to what the user has configured: the module that
 * archive_library named, or archive_command.  On a server that is no member it hands on
 * everything.
 *
 * A stock standby takes what it has received for archived, so a failover leaves a hole
 * where the old primary had not come to it.  Members tell each other up to where the
 * archive is complete; a new primary, before its first file, marks what lies above as to be
 * archived.  What was archived twice for that has the same bytes.
 *
 * A recovery finds the newest timeline by counting up to the first missing history
 * file.  Timelines that were granted and never opened leave such gaps, so with
 * the history of a timeline go those of the numbers that it has skipped: children of
 * the same parent with no WAL of their own.
 *
 * Process: archiver, except qdb_install_archive (postmaster).  An ERROR ends it, and
 * the postmaster starts it again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/timeline.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogarchive.h"
#include "base/base.h"
#include "core/archive.h"
#include "fmgr.h"
#include "postmaster/pgarch.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/wait_event.h"
#include "wal/wal.h"

#define LIBRARY			"quantadb"
#define ARCHIVED_PATH	QDB_DIR "/archived"
#define GAP_PATH		QDB_DIR "/gap.history"
#define STATUS_DIR		XLOGDIR "/archive_status"
#define WAIT_TURNS		20
#define WAIT_MS			50

extern PGDLLEXPORT void _PG_archive_module_init(ArchiveModuleCallbacks *cb);

static const char *next_library = "";	/* that the user had configured */
static ArchiveModuleCallbacks next;
static MemoryContext context = NULL;
static uint64 caught_up_epoch = 0;	/* of the seat for which older WAL was
									 * marked */

/* ---- what is in the archive ---- */

/* What another cluster has archived, of which this node was a member, is nothing here. */
static void
load_archived(void)
{
	char		text[256];
	char		cluster_id[QDB_CLUSTER_ID_SIZE];
	char		form[64];
	uint64		lsn;
	uint32		timeline;
	FILE	   *file = AllocateFile(ARCHIVED_PATH, "r");
	size_t		n;

	if (file == NULL)
		return;
	n = fread(text, 1, sizeof(text) - 1, file);
	FreeFile(file);
	text[n] = '\0';

	snprintf(form, sizeof(form), "format=1\ncluster=%%%ds\nlsn=%%lu\ntimeline=%%u\n",
			 QDB_CLUSTER_ID_SIZE - 1);
	if (sscanf(text, form, cluster_id, &lsn, &timeline) == 3 &&
		strcmp(cluster_id, qdb_shared->identity.cluster_id) == 0)
		qdb_note_archived(lsn, timeline);
}

/* Tells the other members, and the next archiver of this one. */
static void
publish(XLogRecPtr lsn, TimeLineID timeline)
{
	char		text[256];

	qdb_note_archived(lsn, timeline);
	qdb_read_archived(&lsn, &timeline);
	snprintf(text, sizeof(text), "format=1\ncluster=%s\nlsn=" UINT64_FORMAT "\ntimeline=%u\n",
			 qdb_shared->identity.cluster_id, lsn, timeline);
	(void) qdb_write_file(ARCHIVED_PATH, text, strlen(text));
}

/* Calls visit for the name of each file in a folder that is archived or may be. */
typedef void (*NameVisit) (const char *name, const QdbArchiveFile *file, void *arg);

static void
visit_folder(const char *path, const char *suffix, NameVisit visit, void *arg)
{
	DIR		   *dir = AllocateDir(path);
	struct dirent *entry;

	while ((entry = ReadDir(dir, path)) != NULL)
	{
		size_t		length = strlen(entry->d_name);
		char		name[MAXFNAMELEN];
		QdbArchiveFile file;

		if (length < strlen(suffix) || length - strlen(suffix) >= sizeof(name) ||
			strcmp(entry->d_name + length - strlen(suffix), suffix) != 0)
			continue;
		strlcpy(name, entry->d_name, length - strlen(suffix) + 1);
		if (qdb_archive_file_parse(name, wal_segment_size, &file))
			visit(name, &file, arg);
	}
	FreeDir(dir);
}

typedef struct Oldest
{
	const char *but;			/* the file that was just archived */
	XLogRecPtr	begin;
} Oldest;

static void
find_oldest(const char *name, const QdbArchiveFile *file, void *arg)
{
	Oldest	   *oldest = arg;

	if (file->kind == QDB_ARCHIVE_SEGMENT && strcmp(name, oldest->but) != 0)
		oldest->begin = Min(oldest->begin, file->begin);
}

/* Complete up to the oldest segment that still waits. */
static void
note_segment(const char *name, const QdbArchiveFile *file)
{
	Oldest		oldest = {.but = name,.begin = file->end};

	visit_folder(STATUS_DIR, ".ready", find_oldest, &oldest);
	publish(oldest.begin, 0);
}

/* The verdict; reads the server's own history where the state does not reach back. */
static QdbArchiveVerdict
judge_file(const QdbState *state, const QdbArchiveView *view, const QdbArchiveFile *file)
{
	QdbArchiveFile known = *file;
	const QdbGrant *grant = qdb_current_grant(state);

	if (grant != NULL && qdb_archive_asks_history(state, file))
	{
		List	   *history = readTimeLineHistory(grant->timeline);
		TimeLineID	next_timeline;

		if (tliInHistory(file->timeline, history))
			known.history_end = tliSwitchPoint(file->timeline, history, &next_timeline);
		list_free_deep(history);
	}
	return qdb_judge_archive(state, view, &known);
}

/* ---- a new primary ---- */

typedef struct CatchUp
{
	const QdbState *state;
	const QdbArchiveView *view;
	TimeLineID	timeline;		/* histories up to it are there */
	XLogRecPtr	first;			/* oldest WAL here */
	int			marked;
} CatchUp;

static void
mark_ready(const char *name, const QdbArchiveFile *file, void *arg)
{
	CatchUp    *catch_up = arg;
	char		path[MAXPGPATH];

	if (judge_file(catch_up->state, catch_up->view, file) != QDB_ARCHIVE_NOW)
		return;
	if (file->kind == QDB_ARCHIVE_SEGMENT)
		catch_up->first = Min(catch_up->first, file->begin);
	else if (file->kind != QDB_ARCHIVE_HISTORY || file->timeline <= catch_up->timeline)
		return;
	StatusFilePath(path, name, ".ready");
	if (access(path, F_OK) == 0)
		return;
	StatusFilePath(path, name, ".done");
	(void) unlink(path);
	XLogArchiveNotify(name);
	catch_up->marked++;
}

/* Before the first file of a seat. */
static void
catch_up(const QdbState *state, const QdbArchiveView *view)
{
	CatchUp		work = {.state = state,.view = view,.first = PG_UINT64_MAX};
	const QdbGrant *grant = qdb_current_grant(state);
	XLogRecPtr	archived;

	caught_up_epoch = view->open_epoch;
	/* A server that was adopted knows by its own notes. */
	if (grant->parent_timeline == 0)
		return;
	qdb_read_archived(&archived, &work.timeline);
	visit_folder(XLOGDIR, "", mark_ready, &work);
	if (archived != InvalidXLogRecPtr && work.first != PG_UINT64_MAX && work.first > archived)
		ereport(WARNING,
				(errmsg("[replication] the archive lacks WAL from %X/%X to %X/%X",
						LSN_FORMAT_ARGS(archived), LSN_FORMAT_ARGS(work.first)),
				 errdetail("The last primary had not archived it, and this node has removed it already."),
				 errhint("Take a new base backup; raise wal_keep_size if archiving is often behind.")));
	if (work.marked == 0)
		return;
	ereport(LOG, (errmsg("[replication] %d files that the last primary may not have archived will be",
						 work.marked)));
	PgArchForceDirScan();
}

/* ---- history files ---- */

/* The content; NULL: a placeholder, which is no history. */
static char *
read_history(const char *path)
{
	FILE	   *file = AllocateFile(path, "r");
	char	   *text = palloc0(QDB_TRANSFER_CHUNK);

	if (file == NULL)
		ereport(ERROR, (errcode_for_file_access(), errmsg("could not open file \"%s\": %m", path)));
	text[fread(text, 1, QDB_TRANSFER_CHUNK - 1, file)] = '\0';

	FreeFile(file);
	for (char *line = text; line != NULL && *line != '\0'; line = strchr(line, '\n'))
	{
		line += strspn(line, "\n");
		if (*line >= '0' && *line <= '9')
			return text;
	}
	return NULL;
}

static bool
archive_history(const QdbState *state, const char *file, const char *path, TimeLineID timeline)
{
	char	   *text = read_history(path);

	if (text == NULL)
		return true;
	if (!next.archive_file_cb(file, path))
		return false;
	for (TimeLineID number = timeline - 1; number > 1; number--)
	{
		char		name[MAXFNAMELEN];

		if (!qdb_archive_is_gap(state, timeline, number))
			continue;
		TLHistoryFileName(name, number);
		if (!qdb_write_file(GAP_PATH, text, strlen(text)) || !next.archive_file_cb(name, GAP_PATH))
			return false;
		ereport(LOG, (errmsg("[replication] archived \"%s\": that timeline was granted and never opened", name)));
	}
	(void) unlink(GAP_PATH);
	publish(InvalidXLogRecPtr, timeline);
	return true;
}

/* ---- callbacks ---- */

static void
read_view(QdbArchiveView *view)
{
	TimeLineID	timeline;

	memset(view, 0, sizeof(*view));
	SpinLockAcquire(&qdb_shared->mutex);
	view->open_epoch = qdb_shared->open_epoch;
	SpinLockRelease(&qdb_shared->mutex);
	if (!qdb_lease_alive())
		view->open_epoch = 0;
	view->quorum_epoch = pg_atomic_read_u64(&qdb_shared->quorum_epoch);
	view->quorum_lsn = pg_atomic_read_u64(&qdb_shared->quorum_lsn);
	qdb_read_archived(&view->archived, &timeline);
}

/* Waits a moment, since acks are on their way and gates open. */
static QdbArchiveVerdict
judge(const QdbArchiveFile *file, QdbArchiveView *view, QdbState **state)
{
	QdbArchiveVerdict verdict = QDB_ARCHIVE_WAIT;

	for (int i = 0; i < WAIT_TURNS && verdict == QDB_ARCHIVE_WAIT; i++)
	{
		if (i > 0)
			(void) WaitLatch(NULL, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, WAIT_MS, PG_WAIT_EXTENSION);
		MemoryContextReset(context);
		*state = qdb_copy_state();
		read_view(view);
		verdict = judge_file(*state, view, file);
	}
	return verdict;
}

static bool
archive_as_member(const char *name, const char *path)
{
	QdbArchiveFile file;
	QdbArchiveView view;
	QdbState   *state;
	bool		done;

	if (!qdb_archive_file_parse(name, wal_segment_size, &file))
		return next.archive_file_cb(name, path);
	switch (judge(&file, &view, &state))
	{
		case QDB_ARCHIVE_WAIT:
			ereport(LOG, (errmsg("[replication] \"%s\" is not archived yet: this node is not an open primary, or no quorum has it",
								 name)));
			return false;
		case QDB_ARCHIVE_NEVER:
			return true;
		case QDB_ARCHIVE_NOW:
			break;
	}
	if (caught_up_epoch != view.open_epoch)
		catch_up(state, &view);
	if (file.kind == QDB_ARCHIVE_HISTORY)
		return archive_history(state, name, path, file.timeline);
	done = next.archive_file_cb(name, path);
	if (done && file.kind == QDB_ARCHIVE_SEGMENT)
		note_segment(name, &file);
	return done;
}

static bool
archive_file(const char *name, const char *path)
{
	MemoryContext old;
	bool		done;

	if (qdb_shared == NULL || !qdb_shared->member)
		return next.archive_file_cb(name, path);
	old = MemoryContextSwitchTo(context);
	done = archive_as_member(name, path);
	MemoryContextSwitchTo(old);
	MemoryContextReset(context);
	return done;
}

static bool
is_configured(void)
{
	return next.check_configured_cb == NULL || next.check_configured_cb();
}

static void
shut_down(void)
{
	if (next.shutdown_cb != NULL)
		next.shutdown_cb();
}

void
_PG_archive_module_init(ArchiveModuleCallbacks *cb)
{
	ArchiveModuleInit init = shell_archive_init;

	if (*next_library != '\0')
		init = (ArchiveModuleInit) load_external_function(next_library, "_PG_archive_module_init", false, NULL);
	if (init == NULL)
		ereport(ERROR, (errmsg("archive modules have to define the symbol %s", "_PG_archive_module_init")));
	memset(&next, 0, sizeof(next));
	init(&next);
	if (next.archive_file_cb == NULL)
		ereport(ERROR, (errmsg("archive modules must register an archive callback")));
	context = AllocSetContextCreate(TopMemoryContext, "quantadb archive", ALLOCSET_DEFAULT_SIZES);
	if (qdb_shared != NULL && qdb_shared->member)
		load_archived();
	cb->check_configured_cb = is_configured;
	cb->archive_file_cb = archive_file;
	cb->shutdown_cb = shut_down;
}

void
qdb_install_archive(void)
{
	if (!XLogArchivingActive())
		return;
	if (strcmp(XLogArchiveLibrary, LIBRARY) != 0)
		next_library = pstrdup(XLogArchiveLibrary);
	SetConfigOption("archive_library", LIBRARY, PGC_POSTMASTER, PGC_S_OVERRIDE);
}
