/* failover.h - boot, end of WAL, promote, demote */
#ifndef QDB_FAILOVER_H
#define QDB_FAILOVER_H

#include "base/base.h"

/*
 * In _PG_init of the postmaster: reads the identity, owns settings, and for a
 * member creates and fsyncs standby.signal before recovery starts.  Sweeps
 * placeholders of an unfinished promotion.
 */
extern void qdb_boot_prepare(void);

/* The same for a crash cycle, from shmem_startup. */
extern void qdb_boot_as_standby(void);

/* The functions of QdbEffects; see there. */
extern bool qdb_end_of_wal(const QdbState *state, QdbEndOfWal *end, char *why);
extern bool qdb_end_of_wal_again(const QdbState *state, QdbEndOfWal *end, char *why);
extern bool qdb_promote(const QdbState *state, const QdbGrant *grant, char *why);
extern bool qdb_is_promoting(void);
extern int	qdb_promotion_done(const QdbGrant *grant, char *why);
extern void qdb_demote(const char *reason);
extern int	qdb_match_history(const QdbState *state, const QdbEndOfWal *end, char *why);
extern bool qdb_drop_foreign_histories(void);
extern void qdb_end_blocking_queries(void);
extern bool qdb_limits_demanded(char *why);

/* In _PG_init of a member: raises what is below what the control file demands. */
extern void qdb_raise_to_demand(void);

#endif							/* QDB_FAILOVER_H */
