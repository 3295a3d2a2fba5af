/*-------------------------------------------------------------------------
 *
 * resync.h
 *		Whether a member that rewinds comes further, as others hear it.
 *
 * A seat whose acks have to come from such a member opens when the rewind is
 * done, however long that takes, as long as it gets on.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CORE_RESYNC_H
#define QDB_CORE_RESYNC_H

#include <stdbool.h>
#include <stdint.h>

/* Steps of a rewind, in their order. */
#define QDB_REWIND_SCAN		"scan"	/* of the node's own WAL past the fork */
#define QDB_REWIND_FETCH	"rewind"	/* what it changed is fetched */
#define QDB_REWIND_SYNC		"sync"	/* and made durable */

/* Begins as zeros. */
typedef struct QdbResyncWatch
{
	uint64_t	epoch;
	uint64_t	boot;
	int			step;			/* the furthest in this epoch, and how far in
								 * it */
	uint64_t	done;
	bool		worked;			/* came further in this boot */
	int64_t		moved_us;		/* when it last did, or was back from it; 0
								 * never in this epoch */
} QdbResyncWatch;

/*
 * A heartbeat in the epoch said step and done; now in the reader's monotonic us.  An attempt that
 * begins anew comes further only where it passes the best one of its epoch.
 */
extern void qdb_resync_note(QdbResyncWatch *watch, uint64_t epoch, uint64_t boot,
							const char *step, uint64_t done, int64_t now_us);

#endif							/* QDB_CORE_RESYNC_H */
