/*-------------------------------------------------------------------------
 *
 * ladder.c
 *		How a node whose WAL has left the primary's history comes back.
 *
 * Follow and trim are role.c's; here is what comes after them: rewind, with bounded
 * retries, then clone.  Which of them decides qdb_ladder_rung (core/rewind.c).  The work is the
 * resync worker's: this process never waits.
 *
 * A node whose recovery does not reach consistency is on none of these rungs: it is cloned.
 *
 * Every step and its reason goes into the journal.  A rewind that works ends in a
 * crash cycle; the entry about it is made after that, from a file that the plan placed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "core/rewind.h"

#include "cluster/internal.h"

#define RETRY_US		(1000 * 1000)
#define SOON_US			(100 * 1000)	/* while a new holder may be about to
										 * serve */
#define SOON_TRIES		8
#define STUCK_US		(120 * 1000 * 1000)

static bool wanted = false;
static char wanted_why[QDB_REASON_SIZE];
static uint64 wanted_epoch = 0;
static bool started = false;	/* the worker that runs, or ran, is ours */
static uint32 failures = 0;		/* in this epoch, not for want of a source */
static uint32 unserved = 0;		/* in this epoch, for want of a source */
static uint32 seen_failed = 0;	/* of QdbShared.rewind.failed */
static bool useless = false;
static int64 not_before_us = 0;
static bool garbage = false;	/* WAL was discarded, or what a rewind staged
								 * lies there */

void
qdb_want_rewind(const char *reason)
{
	const QdbGrant *grant = qdb_current_grant(qdb_co.state);
	uint64		epoch = grant != NULL ? grant->epoch : 0;

	strlcpy(wanted_why, reason, sizeof(wanted_why));
	wanted = true;
	if (wanted_epoch == epoch)
		return;
	wanted_epoch = epoch;
	failures = unserved = 0;
	useless = started = false;
	not_before_us = 0;
	seen_failed = qdb_shared->rewind.failed;
	qdb_note_event("rewind_due", qdb_co.self.name, reason);
}

void
qdb_forget_rewind(void)
{
	wanted = false;
}

/* The text of a mark for the journal, of QDB_REASON_SIZE bytes; false: there is none. */
static bool
read_mark(const char *path, char *text)
{
	int			fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t		n;

	if (fd < 0)
		return false;
	n = read(fd, text, QDB_REASON_SIZE - 1);
	close(fd);
	text[Max(n, 0)] = '\0';

	return true;
}

/* What the plan of the last rewind has left for the journal. */
static void
finish_rewind(void)
{
	static bool looked = false;
	char		text[QDB_REASON_SIZE];

	if (looked)
		return;
	looked = true;
	qdb_note_trim();
	if (!read_mark(QDB_REWIND_DONE, text))
		return;
	qdb_note_event("rewind_done", qdb_co.self.name, text);
	garbage = true;
}

/* The resync worker removes what lies about, when nothing else is for it to do. */
static void
clean_up(const QdbGrant *grant)
{
	bool		rewinds = wanted && grant != NULL && grant->epoch == wanted_epoch &&
	grant->holder != qdb_co.self.member;

	if (!garbage || rewinds || qdb_clone_wanted() || qdb_resync_running() || !qdb_resync_may_start())
		return;
	garbage = false;
	qdb_start_resync(QDB_RESYNC_CLEAN);
}

/* A trim may have ended in a crash cycle, so its mark is a file too. */
void
qdb_note_trim(void)
{
	char		text[QDB_REASON_SIZE];
	struct stat st;

	garbage |= stat(QDB_DISCARDED_DIR, &st) == 0;
	if (!read_mark(QDB_TRIM_DONE, text))
		return;
	qdb_note_event("trimmed", qdb_co.self.name, text);
	(void) unlink(QDB_TRIM_DONE);
}

/* The worker has ended without a crash cycle. */
static void
take_failure(void)
{
	QdbRewindStatus status;
	char		text[QDB_REASON_SIZE];

	SpinLockAcquire(&qdb_shared->mutex);
	status = qdb_shared->rewind;
	SpinLockRelease(&qdb_shared->mutex);
	started = false;
	not_before_us = qdb_co.now_us + RETRY_US;
	if (status.failed == seen_failed)
	{
		failures++;				/* it died */
		return;
	}
	seen_failed = status.failed;
	useless = status.useless;
	if (!status.unreachable)
		failures++;
	else if (unserved++ < SOON_TRIES)
		not_before_us = qdb_co.now_us + SOON_US;
	snprintf(text, sizeof(text), "%.120s; the rewind did not work: %.100s", wanted_why, status.reason);
	qdb_set_problem(text);
	if (!status.unreachable)
		qdb_note_event("rewind_failed", qdb_co.self.name, status.reason);
}

/*
 * Before it is consistent a node neither reports nor streams (I11).  Where recovery waits for WAL
 * that is not here, nobody brings it: such a node needs a clone.  One record may take its
 * time.
 */
static void
watch_recovery(const QdbGrant *grant)
{
	static XLogRecPtr last = InvalidXLogRecPtr;
	static int64 since_us = 0;
	XLogRecPtr	replayed = GetXLogReplayRecPtr(NULL);

	if (replayed != last || replayed == InvalidXLogRecPtr || !RecoveryInProgress() || HotStandbyActive() ||
		qdb_shared->target_epoch != 0 || grant->holder == qdb_co.self.member ||
		qdb_shared->promised != grant->epoch || qdb_own_end_of_wal() != NULL)
	{
		last = replayed;
		since_us = qdb_co.now_us;
	}
	else if (qdb_co.now_us - since_us > STUCK_US)
		qdb_want_clone("recovery waits for WAL that is not here and has not reached a consistent state");
}

void
qdb_ladder_turn(void)
{
	const QdbGrant *grant = qdb_current_grant(qdb_co.state);
	QdbLadder	ladder = {0};

	finish_rewind();
	clean_up(grant);
	if (grant != NULL && !qdb_clone_wanted())
		watch_recovery(grant);
	if (!wanted || grant == NULL || grant->epoch != wanted_epoch || qdb_shared->promised != wanted_epoch ||
		grant->holder == qdb_co.self.member || qdb_clone_wanted() || qdb_resync_running())
		return;
	if (started)
		take_failure();
	ladder.diverged = true;
	ladder.rewind_useless = useless;
	ladder.failures = failures;
	ladder.rewinds = qdb_rewinds_load(wanted_epoch);
	ladder.now_us = qdb_co.now_us;
	ladder.not_before_us = not_before_us;
	switch (qdb_ladder_rung(&ladder))
	{
		case QDB_RUNG_WAIT:
			break;
		case QDB_RUNG_REWIND:
			if (!qdb_resync_may_start())
				break;
			started = true;
			qdb_start_resync(QDB_RESYNC_REWIND);
			break;
		case QDB_RUNG_CLONE:
			qdb_want_clone(useless ? qdb_shared->rewind.reason : "rewinds did not bring it back");
			break;
	}
}
