/*-------------------------------------------------------------------------
 *
 * internal.h
 *		What the files of the storage access method share.
 *
 * Lock order: data pages by block number, then an overflow page, then pages of
 * the visibility map (pinned before).  The README has the protocols.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_TABLEAM_INTERNAL_H
#define QDB_TABLEAM_INTERNAL_H

#include "postgres.h"

#include "access/heapam.h"
#include "access/hio.h"
#include "access/multixact.h"
#include "access/relscan.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "executor/tuptable.h"
#include "storage/bufmgr.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "tableam/page.h"

/* ---- page.c ---- */

typedef enum QdbShare
{
	QDB_SHARE_NONE,
	QDB_SHARE_FIRST,			/* an insertion by who has inserted nothing */
	QDB_SHARE_INSERT,			/* same transaction and command */
	QDB_SHARE_EXACT				/* and the same meaning as xmax */
} QdbShare;

/* A plan for one page: which entries, and whether a row fits with them. */
typedef struct QdbAlloc
{
	Page		page;
	bool		wants_row;
	bool		empty;			/* page has no line pointer: initialize it */
	OffsetNumber off;			/* of the new row */
	int			old_cap;
	int			cap;			/* entries the page is to have */
	Size		avail;
	Size		used;
	int			ntaken;
	uint8		taken[4];
	bool		have_refs;
	uint16		refs[QDB_REFS]; /* nothing, unless have_refs */
} QdbAlloc;

/* What a request adds to a plan, to take it back. */
typedef struct QdbAllocMark
{
	int			cap;
	int			ntaken;
	Size		used;
} QdbAllocMark;

static inline QdbAllocMark
QdbAllocGetMark(const QdbAlloc *a)
{
	QdbAllocMark mark = {a->cap, a->ntaken, a->used};

	return mark;
}

static inline void
QdbAllocReset(QdbAlloc *a, QdbAllocMark mark)
{
	a->cap = mark.cap;
	a->ntaken = mark.ntaken;
	a->used = mark.used;
}

typedef struct QdbPruneList
{
	uint16		nredirect;
	uint16		ndead;
	uint16		nunused;
	uint16		ncool;
	uint16		nclear;
	bool		tight;			/* no entry stays that no row names */
	OffsetNumber redirect[2 * QDB_MAX_OFFSETS];
	OffsetNumber dead[QDB_MAX_OFFSETS];
	OffsetNumber unused[QDB_MAX_OFFSETS];
	OffsetNumber clear[QDB_MAX_OFFSETS];	/* rows without xmax from now on */
	uint16		cool[QDB_MAX_CAP];	/* entries whose insertions all see */
} QdbPruneList;

extern void qdb_page_init(Page page, int cap);
extern void qdb_overflow_init(Page page);
extern void qdb_page_grow(Page page, int cap);
extern OffsetNumber qdb_page_next_offset(Page page);
extern void qdb_page_put_row(Page page, OffsetNumber off, const uint8 *row, Size len);
extern void qdb_page_refs(Page page, uint16 *refs);
extern Size qdb_page_room(Page page);
extern bool qdb_page_has_room(Page page, Size want, Size *room);
extern OffsetNumber qdb_page_first_free_offset(Page page);
extern const uint8 *qdb_page_row_before(Page page, OffsetNumber off, Size *len);
extern void qdb_page_trim_offsets(Page page);
extern void qdb_page_prune(Page page, const QdbPruneList *list);
extern void qdb_alloc_init(QdbAlloc *a, Page page, Size row_len);
extern int	qdb_alloc_entry(QdbAlloc *a, const QdbXact *want, QdbShare share, int mine, bool *fresh);
extern QdbShare qdb_inserter_share(TransactionId xid);
extern bool qdb_page_is_crowded(Page page);
extern bool qdb_alloc_fits(QdbAlloc *a, Size reserve);
extern void qdb_alloc_apply(const QdbAlloc *a);

/* ---- view.c: rows of a locked page ---- */

/*
 * A page while its buffer is locked, or a private copy of one (buf invalid).
 * Entries of the overflow page are copied once, when the first row needs one.
 */
typedef struct QdbView
{
	Relation	rel;
	Buffer		buf;
	Page		page;
	BlockNumber blk;
	QdbXact    *overflow;		/* by offset */
	bool		changing;		/* locked exclusively, to be changed and
								 * logged: hints go with that */
} QdbView;

typedef struct QdbRow
{
	QdbView    *view;
	OffsetNumber off;
	uint16		len;
	uint8	   *data;
	QdbXact    *xi;				/* NULL: all see the insertion */
	QdbXact    *xx;				/* NULL: no xmax */
	bool		xx_local;		/* on the page, may take hints */
} QdbRow;

extern void qdb_view_init(QdbView *view, Relation rel, Buffer buf);
extern void qdb_view_init_copy(QdbView *view, Relation rel, Page page, BlockNumber blk);
extern void qdb_view_done(QdbView *view);
extern bool qdb_view_row(QdbView *view, OffsetNumber off, QdbRow *row);
extern bool qdb_page_is_known(Page page);
extern void qdb_page_check(Relation rel, Buffer buf);
extern Buffer qdb_read_buffer(Relation rel, BlockNumber blk, BufferAccessStrategy strategy);

/*
 * Is there a row at this offset in which no transaction stands, so that all see
 * it and no one holds it?  False says nothing.  Most rows are like this: it is
 * the question to ask before a loop takes the longer way through qdb_view_row.
 */
static inline bool
QdbPageRowIsCold(Page page, OffsetNumber off)
{
	ItemId		lp = PageGetItemId(page, off);
	unsigned	start = ItemIdGetOffset(lp);
	const uint8 *row = (const uint8 *) page + start;

	return ItemIdIsNormal(lp) && ItemIdGetLength(lp) >= QDB_ROW_HEADER &&
		start + ItemIdGetLength(lp) <= QDB_SPECIAL_OFFSET &&
		(row[QDB_ROW_XI] | row[QDB_ROW_XX]) == 0 &&
		!(row[QDB_ROW_FLAGS] & (QDB_R_XX_HIGH | QDB_R_XX_OVERFLOW));
}

/* qdb_view_row for such a row. */
static inline void
QdbViewColdRow(QdbView *view, OffsetNumber off, QdbRow *row)
{
	ItemId		lp = PageGetItemId(view->page, off);

	row->view = view;
	row->off = off;
	row->len = ItemIdGetLength(lp);
	row->data = (uint8 *) view->page + ItemIdGetOffset(lp);
	row->xi = row->xx = NULL;
	row->xx_local = false;
}

static inline bool
QdbRowHeapOnly(const QdbRow *r)
{
	return (r->data[QDB_ROW_FLAGS] & QDB_R_HEAP_ONLY) != 0;
}

static inline TransactionId
QdbRowXmin(const QdbRow *r)
{
	return r->xi == NULL ? FrozenTransactionId : r->xi->xid;
}

/* As heap's HEAP_XMAX_INVALID. */
static inline bool
QdbRowNoXmax(const QdbRow *r)
{
	return r->xx == NULL || (r->xx->mask & QDB_X_ABORTED);
}

static inline TransactionId
QdbRowRawXmax(const QdbRow *r)
{
	return r->xx == NULL ? InvalidTransactionId : r->xx->xid;
}

static inline uint16
QdbRowXmaxMask(const QdbRow *r)
{
	return r->xx == NULL ? QDB_X_ABORTED : r->xx->mask;
}

static inline bool
QdbRowXmaxIs(const QdbRow *r, uint16 bits)
{
	return r->xx != NULL && (r->xx->mask & bits) != 0;
}

static inline CommandId
QdbRowCmax(const QdbRow *r)
{
	return r->xx == NULL ? FirstCommandId : r->xx->cid;
}

static inline bool
QdbRowHotUpdated(const QdbRow *r)
{
	return QdbRowXmaxIs(r, QDB_X_HOT) && !QdbRowNoXmax(r) &&
		!(r->xi != NULL && (r->xi->mask & QDB_X_ABORTED));
}

/* True, and where, if the xmax names a newer version. */
static inline bool
QdbRowNext(const QdbRow *r, ItemPointer next)
{
	if (!QdbRowXmaxIs(r, QDB_X_UPDATED))
		return false;
	*next = r->xx->next;
	return true;
}

/* What heap has in t_ctid. */
static inline void
QdbRowCtid(const QdbRow *r, ItemPointer ctid)
{
	if (QdbRowXmaxIs(r, QDB_X_MOVED))
		ItemPointerSetMovedPartitions(ctid);
	else if (!QdbRowNext(r, ctid))
		ItemPointerSet(ctid, r->view->blk, r->off);
}

/* ---- xmax.c ---- */

extern TransactionId qdb_multi_update_xid(MultiXactId multi);

/* ---- visibility.c ---- */

extern bool qdb_row_visible(QdbRow *r, Snapshot snapshot);
extern TM_Result qdb_row_satisfies_update(QdbRow *r, CommandId curcid);
extern HTSV_Result qdb_row_satisfies_vacuum_horizon(QdbRow *r, TransactionId *dead_after);
extern HTSV_Result qdb_row_satisfies_vacuum(QdbRow *r, TransactionId oldest_xmin);
extern bool qdb_row_surely_dead(QdbRow *r, struct GlobalVisState *vistest);
extern bool qdb_row_only_locked(QdbRow *r);
extern TransactionId qdb_row_update_xid(const QdbRow *r);
extern void qdb_set_hint(QdbRow *r, QdbXact *x, uint16 bit, TransactionId xid);
extern void qdb_check_conflict_out(bool visible, QdbRow *r, Snapshot snapshot);
extern void qdb_predicate_lock(QdbRow *r, Snapshot snapshot);

/* ---- row.c, slot.c, toast.c ---- */

typedef struct QdbForm
{
	uint8	   *data;			/* may lie in the slot */
	Size		len;
	bool		owns_data;
	bool		owns_values;
	TupleTableSlot *slot;		/* where the values come from */
	Datum	   *values;			/* flat, or NULL: not needed so far */
	bool	   *isnull;
} QdbForm;

typedef struct QdbCursor
{
	const uint8 *row;
	const uint8 *next;
	const uint8 *end;
	const uint8 *bits;			/* of columns that are not null, or NULL */
	int			natts;			/* stored in the row */
	int			att;
	bool		soft;
	bool		damaged;
} QdbCursor;

extern void qdb_cursor_init(QdbCursor *c, TupleDesc desc, const uint8 *row, Size len);
extern void qdb_cursor_init_soft(QdbCursor *c, TupleDesc desc, const uint8 *row, Size len, bool soft);
extern bool qdb_cursor_next(QdbCursor *c, TupleDesc desc, Datum *value, Size *size);
extern bool qdb_needs_alignment(Form_pg_attribute att, const void *value);
extern Size qdb_row_size(TupleDesc desc, const Datum *values, const bool *isnull, uint8 *flags,
						 bool *expanded);
extern void qdb_fill_row(TupleDesc desc, const Datum *values, const bool *isnull, uint8 flags, uint8 *row);
extern Datum *qdb_flat_values(TupleDesc desc, const Datum *values, const bool *isnull);
extern void qdb_free_flat(TupleDesc desc, Datum *flat, const Datum *values);
extern void qdb_form_row(Relation rel, TupleTableSlot *slot, QdbForm *form);
extern void qdb_form_values(TupleDesc desc, Datum *values, bool *isnull, QdbForm *form);
extern void qdb_form_need_values(TupleDesc desc, QdbForm *form);
extern bool qdb_form_needs_toast(Relation rel, QdbForm *form);
extern void qdb_form_free(QdbForm *form);
extern void qdb_deform(TupleDesc desc, const uint8 *row, Size len, Datum *values, bool *isnull);

extern void qdb_toast_form(Relation rel, QdbForm *form, const uint8 *old, Size old_len, int options);
extern void qdb_toast_delete(Relation rel, const uint8 *row, Size len, bool speculative);

extern const TupleTableSlotOps qdb_slot_ops;
extern bool qdb_slot_own_row(TupleTableSlot *slot, TupleDesc desc, uint8 **row, Size *len);
extern void qdb_slot_store(TupleTableSlot *slot, QdbRow *r);
extern void qdb_slot_set_system(TupleTableSlot *slot, Relation rel, const ItemPointerData * tid,
								TransactionId xmin, CommandId cid, TransactionId xmax);

#define QDB_IS_SLOT(slot) ((slot)->tts_ops == &qdb_slot_ops)

/* What a new row says about transactions; the rest of its header stays. */
static inline void
QdbFormSetInserter(QdbForm *form, int xi)
{
	form->data[QDB_ROW_FLAGS] &= QDB_R_HASNULL | QDB_R_EXTERNAL | QDB_R_NATTS16;
	form->data[QDB_ROW_XI] = xi;
	form->data[QDB_ROW_XX] = 0;
}

/* ---- hio.c ---- */

extern Buffer qdb_get_buffer(Relation rel, Size row_len, Buffer other, int options,
							 BulkInsertState bistate, Buffer *vmbuffer, Buffer *vmbuffer_other);
extern Buffer qdb_extend(Relation rel, BufferAccessStrategy strategy);

/* ---- insert.c ---- */

extern void qdb_tuple_insert(Relation rel, TupleTableSlot *slot, CommandId cid, int options,
							 BulkInsertState bistate);
extern void qdb_tuple_insert_speculative(Relation rel, TupleTableSlot *slot, CommandId cid, int options,
										 BulkInsertState bistate, uint32 token);
extern void qdb_tuple_complete_speculative(Relation rel, TupleTableSlot *slot, uint32 token,
										   bool succeeded);
extern void qdb_multi_insert(Relation rel, TupleTableSlot **slots, int nslots, CommandId cid, int options,
							 BulkInsertState bistate);

extern bool qdb_clear_all_visible(Relation rel, Buffer buf, Buffer vmbuffer);
extern void qdb_apply_speculative(Page page, OffsetNumber off, bool succeeded);

/* ---- scan.c ---- */

typedef struct QdbScan
{
	TableScanDescData base;
	BlockNumber nblocks;
	BlockNumber startblock;
	BlockNumber numblocks;
	bool		inited;
	BlockNumber cblock;
	BufferAccessStrategy strategy;
	ParallelBlockTableScanWorkerData *worker;
	MemoryContext context;		/* as long-lived as the scan */
	QdbView		view;			/* of the copy */
	bool		have_view;
	int			cindex;
	int			nrows;
	OffsetNumber rows[QDB_MAX_OFFSETS]; /* visible ones, in order */
	OffsetNumber max;			/* line pointers of the page */
	PGAlignedBlock copy;
} QdbScan;

extern TableScanDesc qdb_scan_begin(Relation rel, Snapshot snapshot, int nkeys, struct ScanKeyData *key,
									ParallelTableScanDesc pscan, uint32 flags);
extern void qdb_scan_end(TableScanDesc scan);
extern void qdb_scan_rescan(TableScanDesc scan, struct ScanKeyData *key, bool set_params,
							bool allow_strat, bool allow_sync, bool allow_pagemode);
extern bool qdb_scan_getnextslot(TableScanDesc scan, ScanDirection direction, TupleTableSlot *slot);
extern void qdb_scan_set_limits(TableScanDesc scan, BlockNumber start, BlockNumber num);
extern bool qdb_scan_next_row(QdbScan *scan, ScanDirection direction, QdbRow *row);
extern void qdb_scan_keep(QdbScan *scan, QdbView *view);
extern void qdb_scan_load(QdbScan *scan, BlockNumber blk);
extern void qdb_scan_set_tidrange(TableScanDesc scan, ItemPointer mintid, ItemPointer maxtid);
extern bool qdb_scan_getnextslot_tidrange(TableScanDesc scan, ScanDirection direction, TupleTableSlot *slot);
extern bool qdb_tuple_tid_valid(TableScanDesc scan, ItemPointer tid);

/* ---- prune.c ---- */

extern void qdb_prune_opt(Relation rel, Buffer buf);
extern bool qdb_prune_for_insert(Relation rel, Buffer buf);
extern bool qdb_prune_for_change(Relation rel, Buffer buf);

/* ---- fetch.c ---- */

struct TBMIterateResult;
extern bool qdb_search_chain(QdbView *view, OffsetNumber *off, Snapshot snapshot, QdbRow *row,
							 bool *all_dead, bool first);
extern struct IndexFetchTableData *qdb_index_fetch_begin(Relation rel);
extern void qdb_index_fetch_reset(struct IndexFetchTableData *data);
extern void qdb_index_fetch_end(struct IndexFetchTableData *data);
extern bool qdb_index_fetch_tuple(struct IndexFetchTableData *data, ItemPointer tid, Snapshot snapshot,
								  TupleTableSlot *slot, bool *call_again, bool *all_dead);
extern bool qdb_tuple_fetch_row_version(Relation rel, ItemPointer tid, Snapshot snapshot,
										TupleTableSlot *slot);
extern bool qdb_tuple_satisfies_snapshot(Relation rel, TupleTableSlot *slot, Snapshot snapshot);
extern void qdb_tuple_get_latest_tid(TableScanDesc scan, ItemPointer tid);
extern bool qdb_scan_bitmap_next_block(TableScanDesc scan, struct TBMIterateResult *tbmres);
extern bool qdb_scan_bitmap_next_tuple(TableScanDesc scan, struct TBMIterateResult *tbmres,
									   TupleTableSlot *slot);

/* ---- sample.c ---- */

struct SampleScanState;
extern bool qdb_scan_sample_next_block(TableScanDesc scan, struct SampleScanState *state);
extern bool qdb_scan_sample_next_tuple(TableScanDesc scan, struct SampleScanState *state,
									   TupleTableSlot *slot);
extern bool qdb_scan_analyze_next_block(TableScanDesc scan, BlockNumber blk, BufferAccessStrategy bstrategy);
extern bool qdb_scan_analyze_next_tuple(TableScanDesc scan, TransactionId oldest_xmin, double *liverows,
										double *deadrows, TupleTableSlot *slot);

/* ---- index.c, indexdel.c ---- */

struct IndexInfo;
struct ValidateIndexState;
extern double qdb_index_build_range_scan(Relation rel, Relation index, struct IndexInfo *info,
										 bool allow_sync, bool anyvisible, bool progress, BlockNumber start,
										 BlockNumber n, IndexBuildCallback callback, void *state,
										 TableScanDesc scan);
extern void qdb_index_validate_scan(Relation rel, Relation index, struct IndexInfo *info, Snapshot snapshot,
									struct ValidateIndexState *state);
extern TransactionId qdb_index_delete_tuples(Relation rel, TM_IndexDeleteOp *op);

/* ---- rewrite.c ---- */

extern void qdb_relation_copy_for_cluster(Relation old, Relation new, Relation index, bool use_sort,
										  TransactionId oldest_xmin, TransactionId *xid_cutoff,
										  MultiXactId *multi_cutoff, double *num_tuples,
										  double *tups_vacuumed, double *tups_recently_dead);

#endif							/* QDB_TABLEAM_INTERNAL_H */
