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

/* ---- text.c ---- */

/* For the state, which is UTF-8; error where the text is not valid in the database's encoding. */
extern char *qdb_utf8(const char *text);
extern char *qdb_utf8_argument(const struct varlena *value);

/* A text of the state as a value of this database; never an error. */
extern Datum qdb_text_datum(const char *utf8);

/* Months count as 30 days. */
/* An error where it is none. */
extern void qdb_check_cluster_name(const char *name);
extern int64 qdb_interval_us(const Interval *interval);

#endif							/* QDB_SQL_H */
