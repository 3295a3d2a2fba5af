/* hooks.h - the parts behind hooks.c; inside of this folder only */
#ifndef QDB_HOOKS_H
#define QDB_HOOKS_H

#include "access/xlogdefs.h"
#include "nodes/plannodes.h"
#include "utils/snapshot.h"

/* commit.c: no signal may end a commit's wait for its quorum. */
extern void qdb_hold_signals(void);
extern void qdb_release_signals(void);

/* fence.c */
typedef enum QdbGate
{
	QDB_GATE_INERT,				/* no member: all as without the library */
	QDB_GATE_STANDBY,			/* in recovery */
	QDB_GATE_CLOSED,			/* not in recovery, without an open seat (I8) */
	QDB_GATE_FENCED,			/* open seat, but may not write now */
	QDB_GATE_OPEN				/* the primary */
} QdbGate;

extern QdbGate qdb_check_gate(void);
extern void qdb_check_commit(void);
extern void qdb_check_query(QdbGate gate, const PlannedStmt *plan);
extern void qdb_check_utility(QdbGate gate, Node *parsetree);
extern void qdb_refuse_write(void) pg_attribute_noreturn();
extern void qdb_refuse_closed(void) pg_attribute_noreturn();

/* objects.c */
extern void qdb_watch_objects(void);

/* reads.c */
extern XLogRecPtr qdb_session_lsn(QdbGate gate);
extern void qdb_wait_for_session(XLogRecPtr lsn, TransactionId xmin);
extern void qdb_check_strict(QdbGate gate);
extern void qdb_check_lag(QdbGate gate, const PlannedStmt *plan);

/* When a wait of a read that begins now ends; monotonic us. */
extern int64 qdb_read_deadline(void);
extern void qdb_check_postmaster(void);

/* Replay was there before any snapshot that is taken from now on. */
extern void qdb_note_replay(XLogRecPtr lsn);

/*
 * replay.c: xmin is that of the snapshot which the transaction has given back to wait, or
 * invalid.
 */
extern bool qdb_wait_for_replay(XLogRecPtr lsn, TransactionId xmin, int64 timeout_us);

/* strict.c: on a replica */
extern XLogRecPtr qdb_begin_strict_read(TransactionId xmin);
extern void qdb_finish_strict_read(XLogRecPtr known);

#endif							/* QDB_HOOKS_H */
