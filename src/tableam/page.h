/*-------------------------------------------------------------------------
 *
 * page.h
 *		Bytes of a page of the storage access method.
 *
 * A data page:
 *
 *	   0  PageHeaderData			 pd_special is always 8184
 *	  24  ItemIdData[n]				 n <= QDB_MAX_OFFSETS, as in heap
 *		  free
 *		  rows						 no alignment, any order
 *		  QdbXact[cap]				 entry i at 8184 - 16 * i, so that growing
 *									 renumbers nothing
 *	8184  QdbSpecial
 *
 * What heap keeps in each row about its transactions is kept once per page in
 * the transaction table: a row only has the numbers of two entries.  Entry 0 is
 * none: the row was inserted by a transaction that all see, or no one has
 * updated, deleted or locked it.  An entry is in use as long as a row names it;
 * nothing counts references.  A full page must never make a DELETE or a lock
 * fail: then the entry goes to an overflow page, which data pages share, and
 * the row has its number there.
 *
 * All of it is written in WAL: a change of these bytes is a change of
 * QDB_PAGE_VERSION, and pages of another version are refused.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_TABLEAM_PAGE_H
#define QDB_TABLEAM_PAGE_H

#include "postgres.h"

#include "access/htup_details.h"
#include "storage/bufpage.h"
#include "storage/itemptr.h"

#define QDB_KIND_DATA			0xD1
#define QDB_KIND_OVERFLOW		0xD2
#define QDB_PAGE_VERSION		3

typedef struct QdbSpecial
{
	uint8		kind;
	uint8		version;
	uint8		cap;			/* entries of the transaction table */
	uint8		flags;			/* 0 */
	BlockNumber overflow;		/* where entries of this page overflow to */
} QdbSpecial;

#define QDB_SPECIAL_OFFSET		(BLCKSZ - sizeof(QdbSpecial))
#define QDB_MAX_OFFSETS			((OffsetNumber) MaxHeapTuplesPerPage)	/* 291: TIDBitmap */
#define QDB_MAX_CAP				254
#define QDB_REFS				256 /* numbers of entries that a byte has */
#define QDB_FIRST_CAP			4
#define QDB_RESERVE				32	/* bytes or entries kept for changes */

typedef struct QdbXact
{
	TransactionId xid;			/* or a MultiXactId */
	CommandId	cid;			/* means something in its transaction only */
	ItemPointerData next;		/* newer version, or a speculative token */
	uint16		mask;
} QdbXact;

/* Low byte of the mask: what the entry means as a row's xmax; it goes to WAL. */
#define QDB_X_KEYSHR			0x0001
#define QDB_X_EXCL				0x0002
#define QDB_X_SHR				(QDB_X_KEYSHR | QDB_X_EXCL)
#define QDB_X_LOCK_ONLY			0x0004
#define QDB_X_MULTI				0x0008
#define QDB_X_KEYS_UPDATED		0x0010
#define QDB_X_UPDATED			0x0020	/* next is a newer version */
#define QDB_X_HOT				0x0040	/* ... in the same HOT chain */
#define QDB_X_MOVED				0x0080	/* moved to another partition */
#define QDB_X_WAL				0x00FF
/* The rest: hints, and the state of an insertion. */
#define QDB_X_COMMITTED			0x0100
#define QDB_X_ABORTED			0x0200	/* or: no one holds the lock any more */
#define QDB_X_SPECULATIVE		0x0400	/* next is the token */
#define QDB_X_HINTS				(QDB_X_COMMITTED | QDB_X_ABORTED)

/*
 * An insertion has the mask of a deletion, so that one entry serves as both.
 * Only the roles of a row's xmax look at the low byte.
 */
#define QDB_X_PLAIN				QDB_X_KEYS_UPDATED

/*
 * Row: flags, number of columns, entry of the inserter, entry of the updater,
 * [high byte of the number of columns], [null bitmap], values without padding.
 */
#define QDB_ROW_FLAGS			0
#define QDB_ROW_NATTS			1
#define QDB_ROW_XI				2
#define QDB_ROW_XX				3
#define QDB_ROW_HEADER			4

#define QDB_R_HASNULL			0x01
#define QDB_R_EXTERNAL			0x02
#define QDB_R_NATTS16			0x04
#define QDB_R_HEAP_ONLY			0x08	/* no index entry of its own */
#define QDB_R_UPDATED			0x10	/* product of an update */
#define QDB_R_XX_HIGH			0x20	/* 256 more: overflow entries only */
#define QDB_R_XX_OVERFLOW		0x80

/* The longest row leaves room for one entry on a page of its own. */
#define QDB_MAX_ROW \
	((Size) (QDB_SPECIAL_OFFSET - sizeof(QdbXact) - SizeOfPageHeaderData - sizeof(ItemIdData)))

/* Overflow page: all of it is special space, so that it has no line pointers. */
typedef struct QdbOverflowEntry
{
	BlockNumber blk;			/* owner; InvalidBlockNumber: free */
	OffsetNumber off;
	uint16		pad;			/* 0 */
	QdbXact		x;
} QdbOverflowEntry;

#define QDB_OVERFLOW_ENTRIES	340
#define QDB_OVERFLOW_START		SizeOfPageHeaderData

StaticAssertDecl(sizeof(QdbSpecial) == 8, "size of QdbSpecial is on disk");
StaticAssertDecl(sizeof(QdbXact) == 16, "size of QdbXact is on disk");
StaticAssertDecl(sizeof(QdbOverflowEntry) == 24, "size of QdbOverflowEntry is on disk");
StaticAssertDecl(BLCKSZ == 8192, "the page format is for pages of 8 kB");
StaticAssertDecl(QDB_OVERFLOW_START + QDB_OVERFLOW_ENTRIES * sizeof(QdbOverflowEntry) <=
				 BLCKSZ - sizeof(QdbSpecial), "overflow entries fit");
StaticAssertDecl(QDB_OVERFLOW_ENTRIES < 512, "a row has nine bits for them");
StaticAssertDecl(QDB_OVERFLOW_ENTRIES >= MaxHeapTuplesPerPage, "one page takes all of a data page");

static inline QdbSpecial *
QdbPageSpecial(Page page)
{
	return (QdbSpecial *) ((char *) page + QDB_SPECIAL_OFFSET);
}

static inline QdbXact *
QdbPageXact(Page page, int i)
{
	return (QdbXact *) ((char *) page + QDB_SPECIAL_OFFSET - sizeof(QdbXact) * i);
}

static inline QdbOverflowEntry *
QdbPageOverflow(Page page, int i)
{
	return (QdbOverflowEntry *) ((char *) page + QDB_OVERFLOW_START) + (i - 1);
}

static inline bool
QdbPageIsOverflow(Page page)
{
	return !PageIsNew(page) && QdbPageSpecial(page)->kind == QDB_KIND_OVERFLOW;
}

static inline uint8 *
QdbPageRow(Page page, OffsetNumber off)
{
	return (uint8 *) page + ItemIdGetOffset(PageGetItemId(page, off));
}

static inline Size
QdbPageGap(Page page)
{
	return ((PageHeader) page)->pd_upper - ((PageHeader) page)->pd_lower;
}

static inline int
QdbRowXX(const uint8 *row)
{
	return row[QDB_ROW_XX] + ((row[QDB_ROW_FLAGS] & QDB_R_XX_HIGH) ? 256 : 0);
}

static inline void
QdbRowSetXX(uint8 *row, int xx, bool overflow)
{
	row[QDB_ROW_XX] = xx & 0xFF;
	row[QDB_ROW_FLAGS] &= ~(QDB_R_XX_HIGH | QDB_R_XX_OVERFLOW);
	if (xx > 255)
		row[QDB_ROW_FLAGS] |= QDB_R_XX_HIGH;
	if (overflow)
		row[QDB_ROW_FLAGS] |= QDB_R_XX_OVERFLOW;
}

static inline int
QdbRowNatts(const uint8 *row)
{
	return row[QDB_ROW_NATTS] +
		((row[QDB_ROW_FLAGS] & QDB_R_NATTS16) ? row[QDB_ROW_HEADER] << 8 : 0);
}

#endif							/* QDB_TABLEAM_PAGE_H */
