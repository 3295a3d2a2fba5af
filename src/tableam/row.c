/*-------------------------------------------------------------------------
 *
 * row.c
 *		A row's bytes from column values, and back.
 *
 * Values follow each other without padding.  A varlena has a short header where
 * its type allows one, so the first byte always tells where the next begins.
 * Who needs a value aligned gets a copy (slot.c).
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/internal.h"

#include "access/detoast.h"
#include "access/heaptoast.h"
#include "utils/expandeddatum.h"

/* Bytes of a stored varlena, which need not be aligned. */
static inline Size
stored_varlena_size(const uint8 *p)
{
	uint32		header;

	if (VARATT_IS_1B_E(p))
		return VARSIZE_EXTERNAL(p);
	if (VARATT_IS_1B(p))
		return VARSIZE_1B(p);
	memcpy(&header, p, sizeof(header));
	return VARSIZE_4B(&header);
}

static inline bool
gets_short_header(Form_pg_attribute att, const void *value)
{
	return att->attstorage != TYPSTORAGE_PLAIN && VARATT_CAN_MAKE_SHORT(value);
}

/*
 * Length of the row, and the flags that follow from its values.  *expanded:
 * some are expanded objects, which have to be made flat before.
 */
Size
qdb_row_size(TupleDesc desc, const Datum *values, const bool *isnull, uint8 *flags, bool *expanded)
{
	Size		size = QDB_ROW_HEADER;

	*expanded = false;
	*flags = desc->natts > 255 ? QDB_R_NATTS16 : 0;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		void	   *p;

		if (isnull[i])
		{
			*flags |= QDB_R_HASNULL;
			continue;
		}
		if (att->attlen > 0)
		{
			size += att->attlen;
			continue;
		}
		p = DatumGetPointer(values[i]);
		if (att->attlen == -2)
			size += strlen(p) + 1;
		else if (VARATT_IS_EXTERNAL(p))
		{
			if (VARATT_IS_EXTERNAL_EXPANDED(p))
				*expanded = true;
			size += VARSIZE_EXTERNAL(p);
			*flags |= QDB_R_EXTERNAL;
		}
		else if (gets_short_header(att, p))
			size += VARATT_CONVERTED_SHORT_SIZE(p);
		else
			size += VARSIZE_ANY(p);
	}
	if (*flags & QDB_R_NATTS16)
		size++;
	if (*flags & QDB_R_HASNULL)
		size += BITMAPLEN(desc->natts);
	return size;
}

static uint8 *
put_value(uint8 *out, Form_pg_attribute att, Datum value)
{
	Size		len;
	void	   *p;

	if (att->attbyval)
	{
		union
		{
			uint8		one;
			uint16		two;
			uint32		four;
			uint64		eight;
		}			v;

		switch (att->attlen)
		{
			case 1:
				v.one = DatumGetUInt8(value);
				break;
			case 2:
				v.two = DatumGetUInt16(value);
				break;
			case 4:
				v.four = DatumGetUInt32(value);
				break;
			default:
				v.eight = DatumGetUInt64(value);
				break;
		}
		memcpy(out, &v, att->attlen);
		return out + att->attlen;
	}
	p = DatumGetPointer(value);
	if (att->attlen > 0)
		len = att->attlen;
	else if (att->attlen == -2)
		len = strlen(p) + 1;
	else if (VARATT_IS_EXTERNAL(p))
		len = VARSIZE_EXTERNAL(p);
	else if (gets_short_header(att, p))
	{
		len = VARATT_CONVERTED_SHORT_SIZE(p);
		SET_VARSIZE_SHORT(out, len);
		memcpy(out + 1, VARDATA(p), len - 1);
		return out + len;
	}
	else
		len = VARSIZE_ANY(p);
	memcpy(out, p, len);
	return out + len;
}

/* Writes the row; it has the size that was computed for the same values. */
void
qdb_fill_row(TupleDesc desc, const Datum *values, const bool *isnull, uint8 flags, uint8 *row)
{
	uint8	   *out = row + QDB_ROW_HEADER;
	uint8	   *bits = NULL;

	row[QDB_ROW_FLAGS] = flags;
	row[QDB_ROW_NATTS] = desc->natts & 0xFF;
	row[QDB_ROW_XI] = row[QDB_ROW_XX] = 0;
	if (flags & QDB_R_NATTS16)
		*out++ = desc->natts >> 8;
	if (flags & QDB_R_HASNULL)
	{
		bits = out;
		memset(bits, 0, BITMAPLEN(desc->natts));
		out += BITMAPLEN(desc->natts);
	}
	for (int i = 0; i < desc->natts; i++)
	{
		if (isnull[i])
			continue;
		if (bits != NULL)
			bits[i >> 3] |= 1 << (i & 7);
		out = put_value(out, TupleDescAttr(desc, i), values[i]);
	}
}

/* A copy of the values in which expanded objects are flat. */
Datum *
qdb_flat_values(TupleDesc desc, const Datum *values, const bool *isnull)
{
	Datum	   *flat = palloc(sizeof(Datum) * Max(desc->natts, 1));

	for (int i = 0; i < desc->natts; i++)
	{
		ExpandedObjectHeader *object;
		Size		size;
		void	   *p;

		flat[i] = values[i];
		if (isnull[i] || TupleDescAttr(desc, i)->attlen != -1 ||
			!VARATT_IS_EXTERNAL_EXPANDED(DatumGetPointer(values[i])))
			continue;
		object = DatumGetEOHP(values[i]);
		size = EOH_get_flat_size(object);
		p = palloc(size);
		EOH_flatten_into(object, p, size);
		flat[i] = PointerGetDatum(p);
	}
	return flat;
}

void
qdb_free_flat(TupleDesc desc, Datum *flat, const Datum *values)
{
	for (int i = 0; i < desc->natts; i++)
		if (flat[i] != values[i])
			pfree(DatumGetPointer(flat[i]));
	pfree(flat);
}

/* Builds the row of values that are flat; form->data is palloc'd. */
void
qdb_form_values(TupleDesc desc, Datum *values, bool *isnull, QdbForm *form)
{
	uint8		flags;
	bool		expanded;

	form->values = values;
	form->isnull = isnull;
	form->len = qdb_row_size(desc, values, isnull, &flags, &expanded);
	Assert(!expanded);
	form->data = palloc(form->len);
	form->owns_data = true;
	qdb_fill_row(desc, values, isnull, flags, form->data);
}

/*
 * The row that a slot's contents make.  A slot of this table has built it
 * already, or does so now, and it is used where it lies; so the slot must not
 * change while the form is in use.
 */
void
qdb_form_row(Relation rel, TupleTableSlot *slot, QdbForm *form)
{
	TupleDesc	desc = RelationGetDescr(rel);
	Datum	   *values;
	uint8		flags;
	bool		expanded;

	memset(form, 0, sizeof(*form));
	form->slot = slot;
	if (qdb_slot_own_row(slot, desc, &form->data, &form->len))
		return;
	slot_getallattrs(slot);
	values = slot->tts_values;
	form->len = qdb_row_size(desc, values, slot->tts_isnull, &flags, &expanded);
	if (expanded)
	{
		values = qdb_flat_values(desc, values, slot->tts_isnull);
		form->len = qdb_row_size(desc, values, slot->tts_isnull, &flags, &expanded);
	}
	form->data = palloc(form->len);
	form->owns_data = true;
	qdb_fill_row(desc, values, slot->tts_isnull, flags, form->data);
	if (values != slot->tts_values)
		qdb_free_flat(desc, values, slot->tts_values);
}

/*
 * The values of a form, for those who need more than its bytes.  They are a
 * copy that may be changed.
 */
void
qdb_form_need_values(TupleDesc desc, QdbForm *form)
{
	Datum	   *values;

	if (form->values != NULL)
		return;
	slot_getallattrs(form->slot);
	values = qdb_flat_values(desc, form->slot->tts_values, form->slot->tts_isnull);
	form->values = values;
	form->isnull = form->slot->tts_isnull;
	form->owns_values = true;
}

void
qdb_form_free(QdbForm *form)
{
	if (form->owns_data)
		pfree(form->data);
	if (form->owns_values)
		pfree(form->values);
}

/*
 * Would heap call the toaster?  The same thresholds make tables alike; they are
 * about a heap tuple, whose size is computed only if it comes near.
 */
bool
qdb_form_needs_toast(Relation rel, QdbForm *form)
{
	TupleDesc	desc = RelationGetDescr(rel);
	Size		len;

	if (rel->rd_rel->relkind != RELKIND_RELATION && rel->rd_rel->relkind != RELKIND_MATVIEW)
		return false;
	if (form->data[QDB_ROW_FLAGS] & QDB_R_EXTERNAL)
		return true;
	if (form->len + desc->natts * (MAXIMUM_ALIGNOF - 1) + 32 <= TOAST_TUPLE_THRESHOLD)
		return false;
	qdb_form_need_values(desc, form);
	len = SizeofHeapTupleHeader;
	if (form->data[QDB_ROW_FLAGS] & QDB_R_HASNULL)
		len += BITMAPLEN(desc->natts);
	len = MAXALIGN(len) + heap_compute_data_size(desc, form->values, form->isnull);
	return len > TOAST_TUPLE_THRESHOLD;
}

/* A checker wants to know, others cannot go on. */
static void
damaged_row(QdbCursor *c)
{
	c->damaged = true;
	if (c->soft)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("row of a table of access method quantadb is damaged"),
			 errdetail("Its values do not end where it ends.")));
}

/*
 * Where a cursor over a row's values starts.  The row has at least its header;
 * natts is clamped to what the descriptor has.
 */
void
qdb_cursor_init(QdbCursor *c, TupleDesc desc, const uint8 *row, Size len)
{
	qdb_cursor_init_soft(c, desc, row, len, false);
}

/* soft: a damaged row raises no error, but sets c->damaged and ends. */
void
qdb_cursor_init_soft(QdbCursor *c, TupleDesc desc, const uint8 *row, Size len, bool soft)
{
	int			stored = QdbRowNatts(row);

	c->soft = soft;
	c->damaged = false;
	c->row = row;
	c->end = row + len;
	c->next = row + QDB_ROW_HEADER;
	c->bits = NULL;
	c->natts = Min(stored, desc->natts);
	c->att = 0;
	if (row[QDB_ROW_FLAGS] & QDB_R_NATTS16)
		c->next++;
	if (row[QDB_ROW_FLAGS] & QDB_R_HASNULL)
	{
		c->bits = c->next;
		c->next += BITMAPLEN(stored);
	}
	if (c->next > c->end)
		damaged_row(c);
}

/*
 * The next value, as it lies in the row: by-reference values need not be
 * aligned.  False: it is null.
 */
bool
qdb_cursor_next(QdbCursor *c, TupleDesc desc, Datum *value, Size *size)
{
	Form_pg_attribute att = TupleDescAttr(desc, c->att);
	const uint8 *p = c->next;

	if (c->bits != NULL && !(c->bits[c->att >> 3] & (1 << (c->att & 7))))
	{
		c->att++;
		*value = (Datum) 0;
		*size = 0;
		return false;
	}
	c->att++;
	if (att->attlen > 0)
		*size = att->attlen;
	else if (p >= c->end || (att->attlen == -1 && !VARATT_IS_1B(p) && c->end - p < VARHDRSZ))
		*size = c->end - p + 1;
	else if (att->attlen == -1)
		*size = stored_varlena_size(p);
	else
		*size = strnlen((const char *) p, c->end - p) + 1;
	if (unlikely(*size > c->end - p))
	{
		damaged_row(c);
		return false;
	}
	c->next = p + *size;

	if (!att->attbyval)
	{
		*value = PointerGetDatum(p);
		return true;
	}
	switch (att->attlen)
	{
		case 1:
			*value = UInt8GetDatum(*p);
			break;
		case 2:
			{
				int16		v;

				memcpy(&v, p, sizeof(v));
				*value = Int16GetDatum(v);
			}
			break;
		case 4:
			{
				int32		v;

				memcpy(&v, p, sizeof(v));
				*value = Int32GetDatum(v);
			}
			break;
		default:
			memcpy(value, p, sizeof(Datum));
			break;
	}
	return true;
}

/* Must users of this type find it aligned? */
bool
qdb_needs_alignment(Form_pg_attribute att, const void *value)
{
	if (att->attlen == -1 && (VARATT_IS_1B(value)))
		return false;
	return att->attalign != TYPALIGN_CHAR &&
		(uintptr_t) value % (att->attalign == TYPALIGN_DOUBLE ? ALIGNOF_DOUBLE :
							 att->attalign == TYPALIGN_INT ? ALIGNOF_INT : ALIGNOF_SHORT) != 0;
}

/*
 * All columns of a row.  By-reference values point into it or, where they need
 * alignment, are palloc'd.
 */
void
qdb_deform(TupleDesc desc, const uint8 *row, Size len, Datum *values, bool *isnull)
{
	QdbCursor	c;
	Size		size;

	qdb_cursor_init(&c, desc, row, len);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (i >= c.natts)
		{
			values[i] = getmissingattr(desc, i + 1, &isnull[i]);
			continue;
		}
		isnull[i] = !qdb_cursor_next(&c, desc, &values[i], &size);
		if (!isnull[i] && !att->attbyval &&
			qdb_needs_alignment(att, DatumGetPointer(values[i])))
			values[i] = PointerGetDatum(memcpy(palloc(size), DatumGetPointer(values[i]), size));
	}
}
