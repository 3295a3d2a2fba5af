/*-------------------------------------------------------------------------
 *
 * vacuum.c
 *		VACUUM: scans the table, cleans its indexes, frees what they let go.
 *
 * The course is heap's (vacuumlazy.c): pages are pruned and their dead line
 * pointers remembered; when memory is full, or at the end, the indexes drop
 * their entries, and then the line pointers become free.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/vacuum.h"

#include "access/genam.h"
#include "access/visibilitymap.h"
#include "commands/dbcommands.h"
#include "commands/progress.h"
#include "executor/instrument.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/autovacuum.h"
#include "storage/freespace.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/pg_rusage.h"
#include "utils/timestamp.h"

#define SKIP_PAGES				32
#define FAILSAFE_EVERY_PAGES	((BlockNumber) (4 * 1024 * 1024 / (BLCKSZ / 1024)))
#define FSM_EVERY_PAGES			((BlockNumber) (8 * 1024 * 1024 / (BLCKSZ / 1024)))
#define BYPASS_FRACTION			0.02

static void
error_context(void *arg)
{
	QdbVacuum  *v = arg;
	const char *name = RelationGetRelationName(v->rel);
	const char *schema = get_namespace_name(RelationGetNamespace(v->rel));

	switch (v->phase)
	{
		case QDB_VACUUM_SCAN:
			if (BlockNumberIsValid(v->blk))
				errcontext("while scanning block %u of relation \"%s.%s\"", v->blk, schema, name);
			else
				errcontext("while scanning relation \"%s.%s\"", schema, name);
			break;
		case QDB_VACUUM_TABLE:
			if (BlockNumberIsValid(v->blk))
				errcontext("while vacuuming block %u of relation \"%s.%s\"", v->blk, schema, name);
			else
				errcontext("while vacuuming relation \"%s.%s\"", schema, name);
			break;
		case QDB_VACUUM_INDEX:
			errcontext("while vacuuming index \"%s\" of relation \"%s.%s\"", v->index_name, schema, name);
			break;
		case QDB_VACUUM_CLEANUP:
			errcontext("while cleaning up index \"%s\" of relation \"%s.%s\"", v->index_name, schema, name);
			break;
		case QDB_VACUUM_TRUNCATE:
			errcontext("while truncating relation \"%s.%s\" to %u blocks", schema, name, v->blk);
			break;
		case QDB_VACUUM_NONE:
			break;
	}
}

/* Close to wraparound: only what moves relfrozenxid counts from now on. */
static bool
check_failsafe(QdbVacuum *v)
{
	if (v->failsafe)
		return true;
	if (likely(!vacuum_xid_failsafe_check(v->rel->rd_rel->relfrozenxid, v->rel->rd_rel->relminmxid)))
		return false;
	v->failsafe = true;
	v->do_index_vacuuming = v->do_index_cleanup = v->do_truncate = false;
	ereport(WARNING,
			(errmsg("bypassing nonessential maintenance of table \"%s.%s.%s\" as a failsafe after %d index scans",
					get_database_name(MyDatabaseId), get_namespace_name(RelationGetNamespace(v->rel)),
					RelationGetRelationName(v->rel), v->index_scans),
			 errdetail("The table's relfrozenxid or relminmxid is too far in the past."),
			 errhint("Consider increasing configuration parameter \"maintenance_work_mem\" or \"autovacuum_work_mem\".\n"
					 "You might also need to consider other ways for VACUUM to keep up with the allocation of transaction IDs.")));
	VacuumCostActive = false;
	VacuumCostBalance = 0;
	return true;
}

/* ---- dead items ---- */

static int
max_dead_items(QdbVacuum *v)
{
	int			mem = IsAutoVacuumWorkerProcess() && autovacuum_work_mem != -1 ?
	autovacuum_work_mem : maintenance_work_mem;
	int64		max;

	if (v->nindexes == 0)
		return QDB_MAX_OFFSETS;
	max = MAXDEADITEMS(mem * 1024L);
	max = Min(max, INT_MAX);
	max = Min(max, MAXDEADITEMS(MaxAllocSize));
	if ((BlockNumber) (max / QDB_MAX_OFFSETS) > v->pages)
		max = (int64) v->pages * QDB_MAX_OFFSETS;
	return (int) Max(max, QDB_MAX_OFFSETS);
}

static void
alloc_dead_items(QdbVacuum *v, int nworkers)
{
	int			max = max_dead_items(v);

	if (nworkers >= 0 && v->nindexes > 1 && v->do_index_vacuuming)
	{
		if (!RelationUsesLocalBuffers(v->rel))
			v->parallel = parallel_vacuum_init(v->rel, v->indexes, v->nindexes, nworkers, max,
											   v->verbose ? INFO : DEBUG2, v->strategy);
		else if (nworkers > 0)
			ereport(WARNING,
					(errmsg("disabling parallel option of vacuum on \"%s\" --- cannot vacuum temporary tables in parallel",
							RelationGetRelationName(v->rel))));
		if (v->parallel != NULL)
		{
			v->dead = parallel_vacuum_get_dead_items(v->parallel);
			return;
		}
	}
	v->dead = palloc(vac_max_items_to_alloc_size(max));
	v->dead->max_items = max;
	v->dead->num_items = 0;
}

/* ---- indexes ---- */

static void
index_info(QdbVacuum *v, int i, IndexVacuumInfo *info, double tuples, bool estimated)
{
	info->index = v->indexes[i];
	info->analyze_only = false;
	info->report_progress = false;
	info->estimated_count = estimated;
	info->message_level = DEBUG2;
	info->num_heap_tuples = tuples;
	info->strategy = v->strategy;
	v->index_name = RelationGetRelationName(v->indexes[i]);
}

/* False: not finished, wraparound is too near. */
static bool
vacuum_indexes(QdbVacuum *v)
{
	bool		all = true;

	if (check_failsafe(v))
		return false;
	pgstat_progress_update_param(PROGRESS_VACUUM_PHASE, PROGRESS_VACUUM_PHASE_VACUUM_INDEX);
	if (v->parallel != NULL)
	{
		parallel_vacuum_bulkdel_all_indexes(v->parallel, v->old_live, v->index_scans);
		all = !check_failsafe(v);
	}
	else
		for (int i = 0; i < v->nindexes && all; i++)
		{
			IndexVacuumInfo info;

			index_info(v, i, &info, v->old_live, true);
			v->phase = QDB_VACUUM_INDEX;
			v->stats[i] = vac_bulkdel_one_index(&info, v->stats[i], (void *) v->dead);
			v->phase = QDB_VACUUM_NONE;
			all = !check_failsafe(v);
		}
	v->index_scans++;
	pgstat_progress_update_param(PROGRESS_VACUUM_NUM_INDEX_VACUUMS, v->index_scans);
	return all;
}

static void
cleanup_indexes(QdbVacuum *v)
{
	bool		estimated = v->scanned < v->pages;

	pgstat_progress_update_param(PROGRESS_VACUUM_PHASE, PROGRESS_VACUUM_PHASE_INDEX_CLEANUP);
	if (v->parallel != NULL)
	{
		parallel_vacuum_cleanup_all_indexes(v->parallel, v->new_tuples, v->index_scans, estimated);
		return;
	}
	for (int i = 0; i < v->nindexes; i++)
	{
		IndexVacuumInfo info;

		index_info(v, i, &info, v->new_tuples, estimated);
		v->phase = QDB_VACUUM_CLEANUP;
		v->stats[i] = vac_cleanup_one_index(&info, v->stats[i]);
		v->phase = QDB_VACUUM_NONE;
	}
}

/* A round: index entries of what is remembered, then the line pointers. */
static void
vacuum_round(QdbVacuum *v)
{
	bool		bypass = v->consider_bypass && v->pages > 0 &&
	v->dead_pages < v->pages * BYPASS_FRACTION &&
	v->dead_items < MAXDEADITEMS(32L * 1024L * 1024L);

	if (!v->do_index_vacuuming)
		;
	else if (bypass)
		v->do_index_vacuuming = false;	/* next to nothing: the next VACUUM
										 * does it */
	else if (vacuum_indexes(v))
		qdb_vacuum_table(v);
	v->dead->num_items = 0;
}

/* ---- the scan ---- */

/* Where the next block is that must be scanned, and whether to skip to it. */
static BlockNumber
next_to_scan(QdbVacuum *v, Buffer *vmbuffer, BlockNumber blk, bool *all_visible, bool *skip)
{
	BlockNumber start = blk;
	bool		skips_visible = false;

	*all_visible = true;
	for (; blk < v->pages; blk++)
	{
		uint8		bits = visibilitymap_get_status(v->rel, blk, vmbuffer);

		if (!(bits & VISIBILITYMAP_ALL_VISIBLE))
		{
			*all_visible = false;
			break;
		}
		/* The last page says whether the table can be truncated. */
		if (blk == v->pages - 1 || !v->skip_with_vm)
			break;
		if (!(bits & VISIBILITYMAP_ALL_FROZEN))
		{
			if (v->aggressive)
				break;
			skips_visible = true;
		}
		vacuum_delay_point();
	}
	*skip = blk - start >= SKIP_PAGES;
	if (*skip && skips_visible)
		v->skipped_all_visible = true;
	return blk;
}

/* Memory is full before this block: cleans the indexes, then goes on. */
static void
empty_dead_items(QdbVacuum *v, BlockNumber blk, Buffer *vmbuffer, BlockNumber *next_fsm)
{
	if (*vmbuffer != InvalidBuffer)
		ReleaseBuffer(*vmbuffer);
	*vmbuffer = InvalidBuffer;
	v->consider_bypass = false;
	vacuum_round(v);
	FreeSpaceMapVacuumRange(v->rel, *next_fsm, blk);
	*next_fsm = blk;
	v->phase = QDB_VACUUM_SCAN;
	v->blk = blk;
	pgstat_progress_update_param(PROGRESS_VACUUM_PHASE, PROGRESS_VACUUM_PHASE_SCAN_HEAP);
}

static void
scan_table(QdbVacuum *v)
{
	Buffer		vmbuffer = InvalidBuffer;
	BlockNumber next_failsafe = 0;
	BlockNumber next_fsm = 0;
	bool		next_visible;
	bool		skip;
	BlockNumber next;
	const int	names[] = {PROGRESS_VACUUM_PHASE, PROGRESS_VACUUM_TOTAL_HEAP_BLKS, PROGRESS_VACUUM_MAX_DEAD_TUPLES};
	const int64 values[] = {PROGRESS_VACUUM_PHASE_SCAN_HEAP, v->pages, v->dead->max_items};

	pgstat_progress_update_multi_param(3, names, values);
	next = next_to_scan(v, &vmbuffer, 0, &next_visible, &skip);
	for (BlockNumber blk = 0; blk < v->pages; blk++)
	{
		bool		visible = true;

		if (blk == next)
		{
			visible = next_visible;
			next = next_to_scan(v, &vmbuffer, blk + 1, &next_visible, &skip);
		}
		else if (skip)
			continue;
		v->scanned++;
		v->phase = QDB_VACUUM_SCAN;
		v->blk = blk;
		pgstat_progress_update_param(PROGRESS_VACUUM_HEAP_BLKS_SCANNED, blk);
		vacuum_delay_point();
		if (blk - next_failsafe >= FAILSAFE_EVERY_PAGES)
		{
			check_failsafe(v);
			next_failsafe = blk;
		}
		if (v->dead->max_items - v->dead->num_items < QDB_MAX_OFFSETS)
			empty_dead_items(v, blk, &vmbuffer, &next_fsm);
		qdb_vacuum_scan_page(v, blk, &vmbuffer, visible);
		if (v->nindexes == 0 && blk - next_fsm >= FSM_EVERY_PAGES)
		{
			FreeSpaceMapVacuumRange(v->rel, next_fsm, blk);
			next_fsm = blk;
		}
	}
	v->blk = InvalidBlockNumber;
	if (vmbuffer != InvalidBuffer)
		ReleaseBuffer(vmbuffer);
	pgstat_progress_update_param(PROGRESS_VACUUM_HEAP_BLKS_SCANNED, v->pages);

	v->new_live = vac_estimate_reltuples(v->rel, v->pages, v->scanned, v->live);
	v->new_tuples = Max(v->new_live, 0) + v->recently_dead;
	if (v->dead->num_items > 0)
		vacuum_round(v);
	if (v->pages > next_fsm)
		FreeSpaceMapVacuumRange(v->rel, next_fsm, v->pages);
	pgstat_progress_update_param(PROGRESS_VACUUM_HEAP_BLKS_VACUUMED, v->pages);
	if (v->nindexes > 0 && v->do_index_cleanup)
		cleanup_indexes(v);
	v->phase = QDB_VACUUM_NONE;
}

/* ---- the whole ---- */

static void
init_vacuum(QdbVacuum *v, Relation rel, VacuumParams *params, BufferAccessStrategy strategy)
{
	memset(v, 0, sizeof(*v));
	v->rel = rel;
	v->strategy = strategy;
	v->verbose = (params->options & VACOPT_VERBOSE) != 0;
	v->aggressive = vacuum_set_xid_limits(rel, params->freeze_min_age, params->freeze_table_age,
										  params->multixact_freeze_min_age,
										  params->multixact_freeze_table_age,
										  &v->oldest_xmin, &v->oldest_multi,
										  &v->freeze_limit, &v->multi_cutoff);
	v->skip_with_vm = true;
	if (params->options & VACOPT_DISABLE_PAGE_SKIPPING)
	{
		v->aggressive = true;
		v->skip_with_vm = false;
	}
	v->consider_bypass = params->index_cleanup != VACOPTVALUE_ENABLED;
	v->do_index_vacuuming = v->do_index_cleanup = params->index_cleanup != VACOPTVALUE_DISABLED;
	v->do_truncate = params->truncate != VACOPTVALUE_DISABLED;
	v->blk = InvalidBlockNumber;
	v->new_relfrozenxid = v->oldest_xmin;
	v->new_relminmxid = v->oldest_multi;
	v->old_live = rel->rd_rel->reltuples;
}

static void
update_index_stats(QdbVacuum *v)
{
	for (int i = 0; i < v->nindexes; i++)
		if (v->stats[i] != NULL && !v->stats[i]->estimated_count)
			vac_update_relstats(v->indexes[i], v->stats[i]->num_pages, v->stats[i]->num_index_tuples, 0, false,
								InvalidTransactionId, InvalidMultiXactId, NULL, NULL, false);
}

static void
update_stats(QdbVacuum *v)
{
	BlockNumber visible;

	if (v->skipped_all_visible)
	{
		/* Pages that were not looked at may have older ones. */
		v->new_relfrozenxid = InvalidTransactionId;
		v->new_relminmxid = InvalidMultiXactId;
	}
	visibilitymap_count(v->rel, &visible, NULL);
	vac_update_relstats(v->rel, v->pages, v->new_live, Min(visible, v->pages), v->nindexes > 0,
						v->new_relfrozenxid, v->new_relminmxid, NULL, NULL, false);
	pgstat_report_vacuum(RelationGetRelid(v->rel), v->rel->rd_rel->relisshared,
						 Max(v->new_live, 0), v->recently_dead);
}

static void
report(QdbVacuum *v, VacuumParams *params, TimestampTz start, const PGRUsage *ru, const WalUsage *wal,
	   BlockNumber orig_pages)
{
	TimestampTz now = GetCurrentTimestamp();
	StringInfoData buf;
	WalUsage	used = {0};

	if (!v->verbose && !(IsAutoVacuumWorkerProcess() && params->log_min_duration >= 0 &&
						 TimestampDifferenceExceeds(start, now, params->log_min_duration)))
		return;
	WalUsageAccumDiff(&used, &pgWalUsage, wal);
	initStringInfo(&buf);
	appendStringInfo(&buf, v->verbose ? "finished vacuuming" : "automatic%s vacuum of table",
					 v->aggressive ? " aggressive" : "");
	appendStringInfo(&buf, " \"%s.%s.%s\": index scans: %d\n", get_database_name(MyDatabaseId),
					 get_namespace_name(RelationGetNamespace(v->rel)), RelationGetRelationName(v->rel),
					 v->index_scans);
	appendStringInfo(&buf, "pages: %u removed, %u remain, %u scanned (%.2f%% of total)\n", v->removed,
					 v->pages, v->scanned, orig_pages == 0 ? 100.0 : 100.0 * v->scanned / orig_pages);
	appendStringInfo(&buf, "tuples: %lld removed, %lld remain, %lld are dead but not yet removable\n",
					 (long long) v->deleted, (long long) v->new_tuples, (long long) v->recently_dead);
	appendStringInfo(&buf, "removable cutoff: %u\n", v->oldest_xmin);
	if (TransactionIdIsValid(v->new_relfrozenxid))
		appendStringInfo(&buf, "relfrozenxid may be: %u\n", v->new_relfrozenxid);
	appendStringInfo(&buf, "%u pages from table had %lld dead item identifiers%s\n", v->dead_pages,
					 (long long) v->dead_items, v->do_index_vacuuming ? " removed" : "");
	appendStringInfo(&buf, "WAL usage: %lld records, %lld full page images, %llu bytes\n",
					 (long long) used.wal_records, (long long) used.wal_fpi,
					 (unsigned long long) used.wal_bytes);
	appendStringInfo(&buf, "system usage: %s", pg_rusage_show(ru));
	ereport(v->verbose ? INFO : LOG, (errmsg_internal("%s", buf.data)));
	pfree(buf.data);
}

void
qdb_relation_vacuum(Relation rel, VacuumParams *params, BufferAccessStrategy strategy)
{
	QdbVacuum	v;
	TimestampTz start = GetCurrentTimestamp();
	WalUsage	wal = pgWalUsage;
	BlockNumber orig_pages;
	PGRUsage	ru;
	ErrorContextCallback callback;

	pg_rusage_init(&ru);
	pgstat_progress_start_command(PROGRESS_COMMAND_VACUUM, RelationGetRelid(rel));
	init_vacuum(&v, rel, params, strategy);
	callback.callback = error_context;
	callback.arg = &v;
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	if (v.verbose)
		ereport(INFO,
				(errmsg(v.aggressive ? "aggressively vacuuming \"%s.%s.%s\"" : "vacuuming \"%s.%s.%s\"",
						get_database_name(MyDatabaseId), get_namespace_name(RelationGetNamespace(rel)),
						RelationGetRelationName(rel))));

	vac_open_indexes(rel, RowExclusiveLock, &v.nindexes, &v.indexes);
	v.stats = palloc0(Max(v.nindexes, 1) * sizeof(IndexBulkDeleteResult *));

	/* After the horizon: pages that come later have nothing older. */
	v.pages = orig_pages = RelationGetNumberOfBlocks(rel);
	check_failsafe(&v);
	alloc_dead_items(&v, params->nworkers);
	scan_table(&v);
	if (v.parallel != NULL)
		parallel_vacuum_end(v.parallel, v.stats);
	if (v.do_index_cleanup)
		update_index_stats(&v);
	vac_close_indexes(v.nindexes, v.indexes, NoLock);
	qdb_vacuum_truncate(&v);
	error_context_stack = callback.previous;

	pgstat_progress_update_param(PROGRESS_VACUUM_PHASE, PROGRESS_VACUUM_PHASE_FINAL_CLEANUP);
	update_stats(&v);
	pgstat_progress_end_command();
	report(&v, params, start, &ru, &wal, orig_pages);
}
