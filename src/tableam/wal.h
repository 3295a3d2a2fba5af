/*-------------------------------------------------------------------------
 *
 * wal.h
 *		WAL records of the storage access method.
 *
 * They belong to the resource manager of base/epoch_record.c, whose epoch
 * record has operation 0.  A record says which entries and offsets were chosen;
 * redo chooses nothing.  What redo needs apart from the page (a conflict
 * horizon, a visibility map bit) is in xl_info or the main data, which a
 * full-page image does not replace.
 *
 *	record			blocks						main data
 *	INSERT			0 page						-
 *	MULTI_INSERT	0 page						flags
 *	UPDATE			0 new [1 old] [2 overflow]	[flags, or a prune's conflict]
 *	DELETE, LOCK	0 page [2 overflow]			-
 *	PRUNE			0 page [2 overflow]			conflict xid, flags
 *	MISC			0 page [...]				kind
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_TABLEAM_WAL_H
#define QDB_TABLEAM_WAL_H

#include "tableam/internal.h"
#include "tableam/tableam.h"

#include "access/xloginsert.h"
#include "access/xlogreader.h"

#define XLOG_QDB_INSERT			0x10
#define XLOG_QDB_MULTI_INSERT	0x20
#define XLOG_QDB_UPDATE			0x30
#define XLOG_QDB_DELETE			0x40
#define XLOG_QDB_LOCK			0x50
#define XLOG_QDB_PRUNE			0x60
#define XLOG_QDB_MISC			0x70
#define XLOG_QDB_OPMASK			0x70
/* The visibility of block 0 was cleared; of a LOCK: only that all is frozen. */
#define XLOG_QDB_VM_CLEARED		0x80

#define QDB_BLOCK_PAGE			0
#define QDB_BLOCK_OLD			1
#define QDB_BLOCK_OVERFLOW		2

/* first byte of an INSERT's block; the lowest bits are the row's flags */
#define XLQ_INSERT_ROW			(QDB_R_HASNULL | QDB_R_EXTERNAL | QDB_R_NATTS16)
#define XLQ_INSERT_FRESH		0x08	/* write the inserter's entry */
#define XLQ_INSERT_CAP			0x10	/* new size of the table */
#define XLQ_INSERT_SPECULATIVE	0x20
#define XLQ_INSERT_LIKE_BEFORE	0x40	/* as long as the row before it, and
										 * logged as its difference to that */
#define XLQ_INSERT_SAME_NATTS	0x80	/* as many columns as that */

/* Values of rows for which that is tried, in bytes. */
#define XLQ_LIKE_BEFORE_MAX		256

/* flags of MULTI_INSERT */
#define XLQ_MULTI_ALL_FROZEN	0x01
#define XLQ_MULTI_CONTIGUOUS	0x02	/* in the block's data */

/*
 * The main data of an UPDATE is either one byte of flags, or the conflict
 * horizon of the prune that the record has in it: how far it lies before the
 * record's xid (0: none) in two bytes, or itself.  A prune is on one page only,
 * the flags are about the second.
 */
#define XLQ_UPDATE_OLD_VM		0x02
#define XLQ_CONFLICT_NEAR		sizeof(uint16)
#define XLQ_CONFLICT_XID		sizeof(TransactionId)

/* first byte of an UPDATE's block 0 */
#define XLQ_NEW_PRUNE			0x01
#define XLQ_NEW_HOT				0x02
#define XLQ_NEW_SHARED			0x04	/* inserter's entry is the updater's */
#define XLQ_NEW_NEXT			0x08	/* at the first free offset */
#define XLQ_NEW_DIFF			0x10	/* against the old version */
#define XLQ_NEW_SAME_SHAPE		0x20	/* its header and length, too */
#define XLQ_NEW_PLAIN			0x40	/* the old version's entry is written,
										 * and is what the record's defaults
										 * say */
#define XLQ_NEW_MORE			0x80	/* the second byte follows */
/* second byte */
#define XLQ_MORE_XX				0x01	/* the new version is locked */
#define XLQ_MORE_KEYS			0x02	/* key columns changed */

/* kinds of MISC */
#define XLQ_MISC_CONFIRM		1	/* speculative insertion stays */
#define XLQ_MISC_ABORT			2	/* ... or goes */
#define XLQ_MISC_VACUUM			3	/* dead line pointers become unused */
#define XLQ_MISC_IMAGES			4	/* full-page images say all */

/* Which fields of an entry follow; the others are the record's defaults. */
#define XLQ_ENTRY_FRESH			0x01	/* write it */
#define XLQ_ENTRY_CAP			0x02	/* new size of the table */
#define XLQ_ENTRY_OVERFLOW		0x04
#define XLQ_ENTRY_HIGH			0x08	/* number above 255 */
#define XLQ_ENTRY_MASK			0x10
#define XLQ_ENTRY_XID			0x20
#define XLQ_ENTRY_NEXT			0x40
#define XLQ_ENTRY_SPECULATIVE	0x80

typedef struct QdbEntry
{
	int			idx;			/* 0: none */
	bool		fresh;
	bool		overflow;
	int			cap;			/* 0: as it is */
	QdbXact		x;
} QdbEntry;

typedef struct QdbRecWriter
{
	char	   *p;
	char	   *start;
	char	   *end;
} QdbRecWriter;

typedef struct QdbRecReader
{
	const char *p;
	const char *end;
} QdbRecReader;

/* ---- wal.c ---- */
extern void qdb_rec_too_long(void) pg_attribute_noreturn();
extern void qdb_rec_write_entry(QdbRecWriter *w, const QdbEntry *e, const QdbXact *def);
extern bool qdb_rec_entry_is_plain(const QdbEntry *e, const QdbXact *def);
extern void qdb_rec_write_offset(QdbRecWriter *w, OffsetNumber off);
extern OffsetNumber qdb_rec_read_offset(QdbRecReader *r);
extern uint8 qdb_rec_read1(QdbRecReader *r);
extern uint16 qdb_rec_read2(QdbRecReader *r);
extern const char *qdb_rec_read_bytes(QdbRecReader *r, Size len);
extern void qdb_rec_read_entry(QdbRecReader *r, QdbEntry *e, const QdbXact *def);
extern XLogRecPtr qdb_xlog_insert(uint8 info);

/* ---- wal_prune.c ---- */
extern void qdb_rec_write_prune(QdbRecWriter *w, Page page, const QdbPruneList *list);
extern void qdb_rec_read_prune(QdbRecReader *r, Page page, QdbPruneList *list);

/* What the entry of a DELETE or LOCK means, unless it says otherwise. */
static inline uint16
QdbDefaultXmaxMask(uint8 op)
{
	return op == XLOG_QDB_LOCK ? QDB_X_EXCL | QDB_X_LOCK_ONLY : QDB_X_PLAIN;
}

static inline void
QdbRecWriterInit(QdbRecWriter *w, char *buf, Size size)
{
	w->p = w->start = buf;
	w->end = buf + size;
}

static inline void
qdb_rec_write_bytes(QdbRecWriter *w, const void *p, Size len)
{
	if (unlikely(w->end - w->p < len))
		qdb_rec_too_long();
	memcpy(w->p, p, len);
	w->p += len;
}

static inline void
qdb_rec_write1(QdbRecWriter *w, uint8 v)
{
	qdb_rec_write_bytes(w, &v, sizeof(v));
}

static inline void
qdb_rec_write2(QdbRecWriter *w, uint16 v)
{
	qdb_rec_write_bytes(w, &v, sizeof(v));
}

static inline void
QdbXactInit(QdbXact *x, TransactionId xid, CommandId cid, uint16 mask)
{
	x->xid = xid;
	x->cid = cid;
	ItemPointerSetInvalid(&x->next);
	x->mask = mask;
}

/* Writes an entry to a data page that is locked and has room for it. */
extern void qdb_apply_entry(Page page, const QdbEntry *e);

/* The row's xmax becomes this entry; opage may be NULL unless it overflows. */
extern void qdb_apply_xx(Page page, BlockNumber blk, OffsetNumber off, const QdbEntry *e,
						 Page opage, BlockNumber oblk);

#endif							/* QDB_TABLEAM_WAL_H */
