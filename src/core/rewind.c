/*-------------------------------------------------------------------------
 *
 * rewind.c
 *		What a rewind has to know and to change, as plain functions.
 *
 *-------------------------------------------------------------------------
 */
#include "core/rewind.h"

bool
qdb_rewind_fork(const QdbTimelinePart *own, int nown, const QdbTimelinePart *source, int nsource,
				uint32_t *timeline, uint64_t *fork)
{
	int			i = 0;

	while (i < nown && i < nsource && own[i].timeline == source[i].timeline &&
		   own[i].begin == source[i].begin)
		i++;
	if (i == 0)
		return false;
	*timeline = own[i - 1].timeline;
	*fork = own[i - 1].end < source[i - 1].end ? own[i - 1].end : source[i - 1].end;
	return *fork != UINT64_MAX;
}

/*
 * Pages of this node may be as old as its own redo point, and a page that the source
 * wrote while it was read may be torn: only WAL from the source's redo point on has an
 * image of it.  A standby also keeps hints of transactions that were in progress
 * at its redo point, on pages that no later record restores.
 */
bool
qdb_rewind_may_start(const QdbCheckpointView *checkpoint, const QdbRewindLimits *limits)
{
	return checkpoint->full_page_writes && checkpoint->end <= limits->fork &&
		checkpoint->redo <= limits->own_redo && /* I12 */
		checkpoint->redo <= limits->source_redo &&
		(limits->oldest_xid == 0 || checkpoint->next_xid <= limits->oldest_xid);
}

/*
 * Blocks that were cut off here after the fork may have come back without WAL, as
 * empty pages: from the cut on everything is fetched.
 */
QdbSegmentChange
qdb_rewind_segment(const QdbSegmentView *view, uint32_t block_size)
{
	QdbSegmentChange change = {.tail_from = QDB_NO_BLOCK};
	uint64_t	local_blocks = view->local_size / block_size;

	change.nblocks = (uint32_t) (view->source_size / block_size);
	if (!view->exists || view->recreated)
	{
		change.whole = true;
		return change;
	}
	change.truncate = view->local_size > view->source_size;
	if (local_blocks < change.nblocks)
		change.tail_from = (uint32_t) local_blocks;
	if (view->cut_block < change.nblocks && view->cut_block < change.tail_from)
		change.tail_from = view->cut_block;
	return change;
}

QdbRung
qdb_ladder_rung(const QdbLadder *ladder)
{
	if (ladder->now_us < ladder->not_before_us)
		return QDB_RUNG_WAIT;
	if (ladder->lacks_wal)
		return QDB_RUNG_CLONE;
	if (!ladder->diverged)
		return QDB_RUNG_WAIT;
	if (ladder->rewind_useless || ladder->rewinds >= QDB_REWIND_TRIES ||
		ladder->failures >= QDB_REWIND_FAILURES)
		return QDB_RUNG_CLONE;
	return QDB_RUNG_REWIND;
}
