/*-------------------------------------------------------------------------
 *
 * vacuum.h
 *		State of one VACUUM.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_TABLEAM_VACUUM_H
#define QDB_TABLEAM_VACUUM_H

#include "tableam/prune.h"

#include "commands/vacuum.h"

typedef enum QdbVacuumPhase
{
	QDB_VACUUM_NONE,
	QDB_VACUUM_SCAN,
	QDB_VACUUM_INDEX,
	QDB_VACUUM_CLEANUP,
	QDB_VACUUM_TABLE,
	QDB_VACUUM_TRUNCATE
} QdbVacuumPhase;

typedef struct QdbVacuum
{
	Relation	rel;
	Relation   *indexes;
	int			nindexes;
	IndexBulkDeleteResult **stats;
	ParallelVacuumState *parallel;
	BufferAccessStrategy strategy;
	bool		verbose;
	bool		aggressive;
	bool		skip_with_vm;
	bool		do_index_vacuuming;
	bool		do_index_cleanup;
	bool		do_truncate;
	bool		consider_bypass;
	bool		failsafe;
	TransactionId oldest_xmin;
	MultiXactId oldest_multi;
	TransactionId freeze_limit;
	MultiXactId multi_cutoff;
	TransactionId new_relfrozenxid;
	MultiXactId new_relminmxid;
	bool		skipped_all_visible;
	VacDeadItems *dead;
	BlockNumber pages;
	BlockNumber scanned;
	BlockNumber removed;
	BlockNumber nonempty;
	BlockNumber dead_pages;
	int			index_scans;
	int64		dead_items;
	int64		deleted;
	int64		live;
	int64		recently_dead;
	double		old_live;
	double		new_live;
	double		new_tuples;
	/* where an error happens */
	QdbVacuumPhase phase;
	BlockNumber blk;
	const char *index_name;
} QdbVacuum;

/* ---- vacuum.c ---- */
extern void qdb_relation_vacuum(Relation rel, VacuumParams *params, BufferAccessStrategy strategy);

/* ---- vacuum_page.c ---- */
extern void qdb_vacuum_scan_page(QdbVacuum *v, BlockNumber blk, Buffer *vmbuffer, bool vm_all_visible);
extern void qdb_vacuum_table(QdbVacuum *v);

/* ---- vacuum_truncate.c ---- */
extern void qdb_vacuum_truncate(QdbVacuum *v);

#endif							/* QDB_TABLEAM_VACUUM_H */
