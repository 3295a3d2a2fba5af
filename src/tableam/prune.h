/*-------------------------------------------------------------------------
 *
 * prune.h
 *		Plans of what to remove from a page.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_TABLEAM_PRUNE_H
#define QDB_TABLEAM_PRUNE_H

#include "tableam/wal.h"

/*
 * Bytes that a record has at most: pairs of two bytes for each of a page's line
 * pointers, and five sets.
 */
#define QDB_PRUNE_REC	(4 * (int) QDB_MAX_OFFSETS + 512)

typedef struct QdbPrune
{
	QdbView    *view;
	TransactionId horizon;
	TransactionId conflict;		/* snapshots up to here miss something */
	TransactionId new_prune_xid;
	OffsetNumber max;
	bool		removes;		/* not only entries */
	int			ndeleted;
	int			noverflow;
	int			nbusy;			/* redirects, and rows that are not cold */
	OffsetNumber busy[QDB_MAX_OFFSETS];
	bool		removed[QDB_MAX_OFFSETS + 1];
	int8		htsv[QDB_MAX_OFFSETS + 1];	/* HTSV_Result, -1: no row */
	uint16		overflow[QDB_MAX_OFFSETS];	/* entries to free there */
	QdbPruneList list;
	Size		rec_len;
	char		rec[QDB_PRUNE_REC]; /* what its record says */
} QdbPrune;

extern void qdb_prune_plan(QdbPrune *p, QdbView *view, TransactionId horizon, bool entries);
extern bool qdb_prune_has_work(const QdbPrune *p);
extern void qdb_prune_write(QdbPrune *p);
extern void qdb_prune_apply(QdbPrune *p, Page opage);
extern void qdb_prune_execute(Relation rel, QdbPrune *p, Buffer buf);
extern bool qdb_prune_may_help_update(QdbView *view, Size hot_len);
extern bool qdb_prune_for_update(QdbPrune *p, QdbView *view, Size hot_len);
extern void qdb_prune_report(Relation rel, const QdbPrune *p);
extern void qdb_advance_removed(QdbRow *row, TransactionId *xid);
extern void qdb_overflow_free(Page opage, int i);

#endif							/* QDB_TABLEAM_PRUNE_H */
