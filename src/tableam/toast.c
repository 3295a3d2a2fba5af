/*-------------------------------------------------------------------------
 *
 * toast.c
 *		Large values: compressed, or out of line in a heap toast table.
 *
 * The core toaster works on column values, so that it does not care how we
 * store them.  Targets are heap's, computed for the heap tuple the values would
 * make, so that the same values are compressed or moved in both.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/internal.h"

#include "access/heaptoast.h"
#include "access/toast_helper.h"

static Size
data_size(ToastTupleContext *ttc)
{
	return heap_compute_data_size(ttc->ttc_rel->rd_att, ttc->ttc_values, ttc->ttc_isnull);
}

/* Values with attstorage EXTENDED and EXTERNAL. */
static void
shrink_extended(ToastTupleContext *ttc, Size target, int options)
{
	Relation	rel = ttc->ttc_rel;
	int			att;

	while (data_size(ttc) > target &&
		   (att = toast_tuple_find_biggest_attribute(ttc, true, false)) >= 0)
	{
		if (TupleDescAttr(rel->rd_att, att)->attstorage == TYPSTORAGE_EXTENDED)
			toast_tuple_try_compression(ttc, att);
		else
			ttc->ttc_attr[att].tai_colflags |= TOASTCOL_INCOMPRESSIBLE;

		/* Too large by itself: do not compress the others for nothing. */
		if (ttc->ttc_attr[att].tai_size > target && OidIsValid(rel->rd_rel->reltoastrelid))
			toast_tuple_externalize(ttc, att, options);
	}
	while (data_size(ttc) > target && OidIsValid(rel->rd_rel->reltoastrelid) &&
		   (att = toast_tuple_find_biggest_attribute(ttc, false, false)) >= 0)
		toast_tuple_externalize(ttc, att, options);
}

/* Values with attstorage MAIN: out of line only if nothing else helps. */
static void
shrink_main(ToastTupleContext *ttc, Size target, Size main_target, int options)
{
	int			att;

	while (data_size(ttc) > target &&
		   (att = toast_tuple_find_biggest_attribute(ttc, true, true)) >= 0)
		toast_tuple_try_compression(ttc, att);
	while (data_size(ttc) > main_target && OidIsValid(ttc->ttc_rel->rd_rel->reltoastrelid) &&
		   (att = toast_tuple_find_biggest_attribute(ttc, false, true)) >= 0)
		toast_tuple_externalize(ttc, att, options);
}

/*
 * Makes the row small enough, and deletes toasted values of the old version
 * that the new one does not take over.
 *
 * Not to be called with a page locked, or pages of the old version at hand:
 * old is a copy.
 */
void
qdb_toast_form(Relation rel, QdbForm *form, const uint8 *old, Size old_len, int options)
{
	TupleDesc	desc = RelationGetDescr(rel);
	ToastTupleContext ttc;
	Size		hoff = SizeofHeapTupleHeader;
	int			natts = desc->natts;

	qdb_form_need_values(desc, form);
	ttc.ttc_rel = rel;
	ttc.ttc_values = form->values;
	ttc.ttc_isnull = form->isnull;
	ttc.ttc_oldvalues = NULL;
	ttc.ttc_oldisnull = NULL;
	ttc.ttc_attr = palloc(natts * sizeof(ToastAttrInfo));
	if (old != NULL)
	{
		ttc.ttc_oldvalues = palloc(natts * sizeof(Datum));
		ttc.ttc_oldisnull = palloc(natts * sizeof(bool));
		qdb_deform(desc, old, old_len, ttc.ttc_oldvalues, ttc.ttc_oldisnull);
	}

	/* Speculative insertions toast like others. */
	options &= ~HEAP_INSERT_SPECULATIVE;
	toast_tuple_init(&ttc);
	if (ttc.ttc_flags & TOAST_HAS_NULLS)
		hoff += BITMAPLEN(natts);
	hoff = MAXALIGN(hoff);
	shrink_extended(&ttc, RelationGetToastTupleTarget(rel, TOAST_TUPLE_TARGET) - hoff, options);
	shrink_main(&ttc, RelationGetToastTupleTarget(rel, TOAST_TUPLE_TARGET) - hoff,
				TOAST_TUPLE_TARGET_MAIN - hoff, options);
	if (ttc.ttc_flags & TOAST_NEEDS_CHANGE)
	{
		if (form->owns_data)
			pfree(form->data);
		qdb_form_values(desc, form->values, form->isnull, form);
	}
	toast_tuple_cleanup(&ttc);
	pfree(ttc.ttc_attr);
}

/* Deletes the toasted values of a row that is gone. */
void
qdb_toast_delete(Relation rel, const uint8 *row, Size len, bool speculative)
{
	TupleDesc	desc = RelationGetDescr(rel);
	Datum	   *values = palloc(Max(desc->natts, 1) * sizeof(Datum));
	bool	   *isnull = palloc(Max(desc->natts, 1) * sizeof(bool));

	qdb_deform(desc, row, len, values, isnull);
	toast_delete_external(rel, values, isnull, speculative);
	pfree(values);
	pfree(isnull);
}
