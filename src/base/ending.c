/*-------------------------------------------------------------------------
 *
 * ending.c
 *		With what status the postmaster ends.
 *
 * A primary that was told to shut down gives the seat away and ends its server with
 * SIGQUIT, since a shutdown checkpoint would make it diverge.  The postmaster takes
 * that for a failure and exits with 1, which a service manager would show as one, or
 * answer by starting it again.  It was what was asked for: so the status is 0.
 *
 * Process: postmaster.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include <stdlib.h>
#include <unistd.h>

#include "miscadmin.h"
#include "storage/ipc.h"

static bool as_asked = false;

/* All callbacks of the server have run: the lock file is gone. */
static void
replace_status(void)
{
	/* Children inherit this. */
	if (as_asked && getpid() == PostmasterPid)
		_exit(0);
}

/* The last moment at which shared memory is there. */
static void
remember(int code, Datum arg)
{
	as_asked = proc_exit_inprogress && getpid() == PostmasterPid && qdb_shared->handed_over;
}

void
qdb_register_ending(void)
{
	static bool registered = false;

	on_shmem_exit(remember, (Datum) 0);
	if (!registered && atexit(replace_status) != 0)
		ereport(LOG, (errmsg("[cluster] a shutdown of the primary will exit with status 1")));
	registered = true;
}
