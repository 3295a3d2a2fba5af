/*-------------------------------------------------------------------------
 *
 * slot.c
 *		Slots that own a copy of their row.
 *
 * A slot never points into a buffer and holds no pin, so pruning a page needs
 * nothing but its lock.  Columns are taken out of the copy as they are asked
 * for.  By-reference values point into it, or, where their type must be
 * aligned and they are not, into a scratch area.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/internal.h"

#include "access/sysattr.h"
#include "port/pg_bitutils.h"

/* Memory that is kept for the next row, of a size that most have. */
#define KEPT_SIZE	(2 * BLCKSZ)

typedef struct QdbSlot
{
	TupleTableSlot base;
	bool		has_row;		/* else tts_values are all there is */
	bool		built;			/* ... of values: it has all columns */
	QdbCursor	cursor;
	uint8	   *row;
	Size		row_size;		/* allocated */
	Size		row_len;
	char	   *scratch;
	Size		scratch_size;
	Size		scratch_used;
	bool		has_system;
	TransactionId xmin;
	TransactionId xmax;
	CommandId	cmin;
	CommandId	cmax;
} QdbSlot;

static void
slot_init(TupleTableSlot *slot)
{
}

static void
slot_clear(TupleTableSlot *slot)
{
	QdbSlot    *s = (QdbSlot *) slot;

	if (s->row_size > KEPT_SIZE)
	{
		pfree(s->row);
		s->row = NULL;
		s->row_size = 0;
	}
	if (s->scratch_size > KEPT_SIZE)
	{
		pfree(s->scratch);
		s->scratch = NULL;
		s->scratch_size = 0;
	}
	s->has_row = s->has_system = s->built = false;
	s->scratch_used = 0;
	slot->tts_nvalid = 0;
	slot->tts_flags |= TTS_FLAG_EMPTY;
	ItemPointerSetInvalid(&slot->tts_tid);
}

static void
slot_release(TupleTableSlot *slot)
{
	QdbSlot    *s = (QdbSlot *) slot;

	slot_clear(slot);
	if (s->row != NULL)
		pfree(s->row);
	if (s->scratch != NULL)
		pfree(s->scratch);
	s->row = NULL;
	s->scratch = NULL;
}

/*
 * A place for a value that must be aligned.  Others may point to what was given
 * out before, so the area never moves while the slot has this row: it is made
 * for the worst case at once.
 */
static char *
scratch_for(QdbSlot *s, Size size)
{
	char	   *p;

	if (s->scratch_used == 0)
	{
		Size		need = s->row_len + s->base.tts_tupleDescriptor->natts * MAXIMUM_ALIGNOF;

		if (s->scratch_size < need)
		{
			if (s->scratch != NULL)
				pfree(s->scratch);
			s->scratch = NULL;
			s->scratch = MemoryContextAlloc(s->base.tts_mcxt, need);
			s->scratch_size = need;
		}
	}
	Assert(s->scratch_used + MAXALIGN(size) <= s->scratch_size);
	p = s->scratch + s->scratch_used;
	s->scratch_used += MAXALIGN(size);
	return p;
}

/* A value of a type that is passed by value, at a place that need not be aligned. */
static inline Datum
load_value(const uint8 *p, int len)
{
	int64		eight;
	int32		four;
	int16		two;

	switch (len)
	{
		case 4:
			memcpy(&four, p, sizeof(four));
			return Int32GetDatum(four);
		case 8:
			memcpy(&eight, p, sizeof(eight));
			return Int64GetDatum(eight);
		case 2:
			memcpy(&two, p, sizeof(two));
			return Int16GetDatum(two);
		default:
			return UInt8GetDatum(*p);
	}
}

/*
 * Columns from the cursor on that are most of all there are: nulls, values
 * passed by value, and varlenas with a short header, which no one needs aligned.
 * Returns the first that is something else, or would not lie in the row.
 */
static int
take_plain_columns(TupleTableSlot *slot, QdbCursor *c, int natts)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;
	Datum	   *values = slot->tts_values;
	bool	   *isnull = slot->tts_isnull;
	const uint8 *bits = c->bits;
	const uint8 *p = c->next;
	const uint8 *end = c->end;
	int			i;

	for (i = c->att; i < natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		int			len = att->attlen;

		if (bits != NULL && !(bits[i >> 3] & (1 << (i & 7))))
		{
			values[i] = (Datum) 0;
			isnull[i] = true;
			continue;
		}
		if (att->attbyval)
		{
			if (unlikely(end - p < len))
				break;
			values[i] = load_value(p, len);
		}
		else
		{
			if (len != -1 || p >= end || !VARATT_IS_1B(p) || VARATT_IS_1B_E(p))
				break;
			len = VARSIZE_1B(p);
			if (unlikely(end - p < len))
				break;
			values[i] = PointerGetDatum(p);
		}
		isnull[i] = false;
		p += len;
	}
	c->next = p;
	c->att = i;
	return i;
}

/* The column where the cursor stands, whatever it is. */
static pg_noinline void
take_column(QdbSlot *s)
{
	TupleTableSlot *slot = &s->base;
	TupleDesc	desc = slot->tts_tupleDescriptor;
	int			i = s->cursor.att;
	Datum	   *value = &slot->tts_values[i];
	Size		size;

	slot->tts_isnull[i] = !qdb_cursor_next(&s->cursor, desc, value, &size);
	if (!slot->tts_isnull[i] && !TupleDescAttr(desc, i)->attbyval &&
		qdb_needs_alignment(TupleDescAttr(desc, i), DatumGetPointer(*value)))
		*value = PointerGetDatum(memcpy(scratch_for(s, size), DatumGetPointer(*value), size));
}

static void
slot_getsome(TupleTableSlot *slot, int natts)
{
	QdbSlot    *s = (QdbSlot *) slot;

	if (unlikely(!s->has_row))
		elog(ERROR, "getsomeattrs called on a slot that has all its values");

	natts = Min(natts, s->cursor.natts);
	while (take_plain_columns(slot, &s->cursor, natts) < natts)
		take_column(s);
	slot->tts_nvalid = Max(s->cursor.att, slot->tts_nvalid);
}

static Datum
slot_getsystem(TupleTableSlot *slot, int attnum, bool *isnull)
{
	QdbSlot    *s = (QdbSlot *) slot;

	if (!s->has_system)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot retrieve a system column in this context")));
	*isnull = false;
	switch (attnum)
	{
		case MinTransactionIdAttributeNumber:
			return TransactionIdGetDatum(s->xmin);
		case MaxTransactionIdAttributeNumber:
			return TransactionIdGetDatum(s->xmax);
		case MinCommandIdAttributeNumber:
			return CommandIdGetDatum(s->cmin);
		case MaxCommandIdAttributeNumber:
			return CommandIdGetDatum(s->cmax);
		default:
			elog(ERROR, "invalid attnum: %d", attnum);
	}
	return (Datum) 0;
}

/* Makes the slot's memory large enough for a row. */
static void
make_room(QdbSlot *s, Size len)
{
	Size		size;

	if (s->row_size >= len)
		return;
	size = len > KEPT_SIZE ? len : pg_nextpower2_size_t(Max(len, 256));
	if (s->row != NULL)
		pfree(s->row);
	s->row = NULL;
	s->row_size = 0;
	s->row = MemoryContextAlloc(s->base.tts_mcxt, size);
	s->row_size = size;
}

/* The row of the slot is there now. */
static void
have_row(QdbSlot *s, Size len, bool built)
{
	s->row_len = len;
	s->has_row = true;
	s->built = built;
	s->scratch_used = 0;
	qdb_cursor_init(&s->cursor, s->base.tts_tupleDescriptor, s->row, len);
	s->base.tts_nvalid = 0;
	s->base.tts_flags &= ~TTS_FLAG_EMPTY;
}

/*
 * Builds the row of values that lie elsewhere.  It is what the table's page will
 * get, and columns are taken out of it as out of one that was read.
 */
static void
build_row(QdbSlot *s, const Datum *values, const bool *isnull)
{
	TupleDesc	desc = s->base.tts_tupleDescriptor;
	Datum	   *flat = NULL;
	uint8		flags;
	bool		expanded;
	Size		len = qdb_row_size(desc, values, isnull, &flags, &expanded);

	if (expanded)
	{
		flat = qdb_flat_values(desc, values, isnull);
		len = qdb_row_size(desc, flat, isnull, &flags, &expanded);
	}
	make_room(s, len);
	qdb_fill_row(desc, flat ? flat : values, isnull, flags, s->row);
	if (flat != NULL)
		qdb_free_flat(desc, flat, values);
	have_row(s, len, true);
}

/* Values that someone else put into the slot become a row, which is our own copy. */
static void
slot_materialize(TupleTableSlot *slot)
{
	QdbSlot    *s = (QdbSlot *) slot;

	if (!s->has_row && !TTS_EMPTY(slot))
		build_row(s, slot->tts_values, slot->tts_isnull);
}

static void
take_row(QdbSlot *s, const uint8 *row, Size len)
{
	make_room(s, len);
	memcpy(s->row, row, len);
	have_row(s, len, false);
}

static void
slot_copyslot(TupleTableSlot *dst, TupleTableSlot *src)
{
	QdbSlot    *d = (QdbSlot *) dst;

	slot_clear(dst);
	if (QDB_IS_SLOT(src) && ((QdbSlot *) src)->has_row)
		take_row(d, ((QdbSlot *) src)->row, ((QdbSlot *) src)->row_len);
	else
	{
		slot_getallattrs(src);
		build_row(d, src->tts_values, src->tts_isnull);
	}
	if (QDB_IS_SLOT(src))
	{
		const QdbSlot *s = (const QdbSlot *) src;

		d->has_system = s->has_system;
		d->xmin = s->xmin;
		d->xmax = s->xmax;
		d->cmin = s->cmin;
		d->cmax = s->cmax;
	}
	dst->tts_tid = src->tts_tid;
	dst->tts_tableOid = src->tts_tableOid;
}

/* For callers that want heap's header: ANALYZE sorts by it, triggers show it. */
static HeapTuple
slot_copy_heap_tuple(TupleTableSlot *slot)
{
	QdbSlot    *s = (QdbSlot *) slot;
	HeapTuple	tuple;

	slot_getallattrs(slot);
	tuple = heap_form_tuple(slot->tts_tupleDescriptor, slot->tts_values, slot->tts_isnull);
	tuple->t_self = slot->tts_tid;
	tuple->t_tableOid = slot->tts_tableOid;
	if (s->has_system)
	{
		HeapTupleHeaderSetXmin(tuple->t_data, s->xmin);
		HeapTupleHeaderSetXmax(tuple->t_data, s->xmax);
		tuple->t_data->t_choice.t_heap.t_field3.t_cid =
			TransactionIdIsValid(s->xmax) ? s->cmax : s->cmin;
		tuple->t_data->t_ctid = slot->tts_tid;
	}
	return tuple;
}

static MinimalTuple
slot_copy_minimal_tuple(TupleTableSlot *slot)
{
	slot_getallattrs(slot);
	return heap_form_minimal_tuple(slot->tts_tupleDescriptor, slot->tts_values, slot->tts_isnull);
}

const TupleTableSlotOps qdb_slot_ops = {
	.base_slot_size = sizeof(QdbSlot),
	.init = slot_init,
	.release = slot_release,
	.clear = slot_clear,
	.getsomeattrs = slot_getsome,
	.getsysattr = slot_getsystem,
	.materialize = slot_materialize,
	.copyslot = slot_copyslot,
	.get_heap_tuple = NULL,
	.get_minimal_tuple = NULL,
	.copy_heap_tuple = slot_copy_heap_tuple,
	.copy_minimal_tuple = slot_copy_minimal_tuple,
};

/* Would the same values make the same bytes in both?  Not asked of dropped columns. */
static bool
same_layout(TupleDesc a, TupleDesc b)
{
	if (a->natts != b->natts)
		return false;
	for (int i = 0; i < a->natts; i++)
	{
		Form_pg_attribute x = TupleDescAttr(a, i);
		Form_pg_attribute y = TupleDescAttr(b, i);

		if (x->attlen != y->attlen || x->attbyval != y->attbyval ||
			(x->attstorage == TYPSTORAGE_PLAIN) != (y->attstorage == TYPSTORAGE_PLAIN) ||
			x->attisdropped || y->attisdropped)
			return false;
	}
	return true;
}

/*
 * The row that a slot has, or now builds of its values, if a table with this
 * descriptor can have it as it is.  It stays the slot's, but who puts it on a page
 * may change what its header says about transactions.
 */
bool
qdb_slot_own_row(TupleTableSlot *slot, TupleDesc desc, uint8 **row, Size *len)
{
	QdbSlot    *s = (QdbSlot *) slot;

	if (!QDB_IS_SLOT(slot) || TTS_EMPTY(slot))
		return false;
	if (((s->has_row && !s->built) || slot->tts_tupleDescriptor != desc) &&
		!same_layout(slot->tts_tupleDescriptor, desc))
		return false;
	slot_materialize(slot);
	*row = s->row;
	*len = s->row_len;

	/* One that was read may be older than some columns. */
	return QdbRowNatts(s->row) == desc->natts;
}

/*
 * Stores a row.  Its page is locked, or a private copy: nothing of it is needed
 * afterwards.  A slot of another kind gets the values only.
 */
void
qdb_slot_store(TupleTableSlot *slot, QdbRow *r)
{
	QdbSlot    *s = (QdbSlot *) slot;

	if (!QDB_IS_SLOT(slot))
		elog(ERROR, "slot is not of access method quantadb");
	take_row(s, r->data, r->len);
	ItemPointerSet(&slot->tts_tid, r->view->blk, r->off);
	slot->tts_tableOid = RelationGetRelid(r->view->rel);
	s->has_system = true;
	s->xmin = QdbRowXmin(r);
	s->cmin = r->xi == NULL ? FirstCommandId : r->xi->cid;
	s->xmax = QdbRowRawXmax(r);
	s->cmax = QdbRowCmax(r);
	if (r->xx == NULL || (r->xx->mask & QDB_X_LOCK_ONLY))
		s->cmax = s->cmin;		/* heap has one field for both */
	else
		s->cmin = s->cmax;
}

/* What the row of this slot became when it was stored. */
void
qdb_slot_set_system(TupleTableSlot *slot, Relation rel, const ItemPointerData * tid,
					TransactionId xmin, CommandId cid, TransactionId xmax)
{
	QdbSlot    *s = (QdbSlot *) slot;

	slot->tts_tid = *tid;
	slot->tts_tableOid = RelationGetRelid(rel);
	if (!QDB_IS_SLOT(slot))
		return;
	slot_materialize(slot);
	s->has_system = true;
	s->xmin = xmin;
	s->xmax = xmax;
	s->cmin = s->cmax = cid;
}
