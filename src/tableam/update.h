/*-------------------------------------------------------------------------
 *
 * update.h
 *		One UPDATE of one row: what it knows and what it plans.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_TABLEAM_UPDATE_H
#define QDB_TABLEAM_UPDATE_H

#include "tableam/change.h"
#include "tableam/prune.h"

typedef struct QdbUpdate
{
	QdbChange	c;				/* the old version */
	QdbForm		form;
	bool		hot_possible;
	QdbXmax		old_xmax;
	QdbXmax		new_xmax;		/* lockers that stay */
	Buffer		newbuf;			/* may be the old one */
	Buffer		new_vmbuffer;
	/* the plan */
	bool		hot;
	bool		shared;			/* new_xi is old_xx */
	bool		next;			/* at the first free offset after a prune */
	QdbPrune   *prune;			/* part of this update, or NULL */
	char	   *pruned;			/* the page after it */
	QdbAlloc	a;				/* of the new version's page */
	QdbAlloc	b;				/* of the old version's, if it is another */
	QdbEntry	old_xx;
	QdbEntry	new_xi;
	QdbEntry	new_xx;
} QdbUpdate;

/* ---- update_log.c ---- */
extern void qdb_log_update(QdbUpdate *u, bool vm_cleared, bool old_vm_cleared);

#endif							/* QDB_TABLEAM_UPDATE_H */
