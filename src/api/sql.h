/* sql.h - what the SQL functions share; inside of this folder only */
#ifndef QDB_SQL_H
#define QDB_SQL_H

#include "base/status.h"
#include "datatype/timestamp.h"

/* Error unless the library was preloaded. */
extern void qdb_require_loaded(void);

/* The same, and this server is a member. */
extern void qdb_require_member(void);

/* Sends the request to the coordinator; error unless it was done. */
extern void qdb_run_request(QdbRequest *request, int timeout_ms, const char *what);

/* Commits a command in Raft; error unless it was done. */
extern void qdb_run_command(QdbCommand *command, const char *what);

/* Months count as 30 days. */
extern int64 qdb_interval_us(const Interval *interval);

#endif							/* QDB_SQL_H */
