/*-------------------------------------------------------------------------
 *
 * streamer.h
 *		What the parts of the streamer share: the seat as it sees it, the
 *		streams, reading WAL, WalSnd entries and the release of commits.
 *
 * One process, one thread; shared memory sees only QdbShared.streams, the
 * quorum fields and PostgreSQL's WalSnd entries.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_WAL_STREAMER_H
#define QDB_WAL_STREAMER_H

#include "base/base.h"
#include "base/channel.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "core/lag.h"
#include "core/upstream.h"
#include "wal/messages.h"

#define QDB_MAX_STREAMS			(QDB_MAX_MEMBERS + 8)	/* some greetings in
														 * flight */

/* The seat in this turn of the loop. */
typedef struct QdbSeat
{
	uint64		epoch;			/* 0: this node serves nothing */
	uint64		taker;			/* 0, or without the seat: WAL is handed to
								 * this member only, and nothing is counted */
	bool		relay;			/* without the seat: WAL of the holder that
								 * this node streams from is passed on to
								 * replicas without a vote, and nothing is
								 * counted */
	TimeLineID	timeline;
	XLogRecPtr	record_end;		/* of the epoch record */
	XLogRecPtr	flush;			/* I4: nothing past it is sent */
	List	   *history;		/* of timeline; kept until the seat changes */
} QdbSeat;

/*
 * Whose files nodes that resynchronise may get here (store.c): this node's own as
 * the holder of the seat, or as a replica that follows the holder.
 */
typedef struct QdbStore
{
	uint64		epoch;			/* 0: none are served */
	TimeLineID	timeline;
	bool		replica;		/* WAL and blocks for clones only */
	List	   *history;		/* of timeline */
} QdbStore;

/* A WAL frame, encoded and compressed once for all streams. */
typedef struct QdbSharedFrame
{
	TimeLineID	timeline;
	XLogRecPtr	start;
	XLogRecPtr	end;
	uint32		refs;			/* streams that have sent a part of it */
	uint32		length;			/* with the frame's header */
	uint8		bytes[FLEXIBLE_ARRAY_MEMBER];
} QdbSharedFrame;

typedef struct QdbStream
{
	QdbChannel *channel;		/* NULL: entry unused */
	int			event_position; /* in the wait event set */
	uint32		events;			/* that it waits for */
	bool		closing;		/* a refusal is queued; close once it is out */
	int64		closing_us;

	/* From the hello; member 0: not greeted yet. */
	uint64		member;
	uint64		incarnation;
	uint64		boot;
	uint64		connection;
	XLogRecPtr	verified;		/* replay position that was matched with our
								 * history */

	/* A greeting that came before the seat that it is for. */
	bool		early;
	QdbStreamHello hello;

	/* A connection that fetches files instead; member stays 0. */
	struct QdbServe *serve;

	/* While streaming. */
	bool		streaming;
	TimeLineID	timeline;
	bool		historic;
	TimeLineID	next_timeline;
	XLogRecPtr	valid_upto;		/* historic: the switch point */
	XLogRecPtr	sent;			/* end of frame, where there is one */
	QdbSharedFrame *frame;		/* under way; nothing else may be sent */
	uint32		frame_sent;		/* bytes of it */
	int			walsnd;			/* WalSnd entry, -1 none */

	/* Acks under the seat's epoch; 0 none. */
	XLogRecPtr	write;
	XLogRecPtr	flush;
	XLogRecPtr	apply;
	int64		reply_us;
	int64		keepalive_us;
	uint64		bytes_raw;
	uint64		earlier_raw;	/* of this member's earlier connections */
	uint64		earlier_wire;
	bool		counted;		/* as a connection of this member */
	QdbLagTracker flush_lag;
	QdbLagTracker apply_lag;
} QdbStream;

/* ---- streamer.c ---- */
extern QdbSeat qdb_seat;
extern QdbStream qdb_streams[QDB_MAX_STREAMS];
extern bool qdb_wait_set_stale; /* a stream came or went */

/* A commit waits, or waited lately, for replicas to have applied it. */
extern bool qdb_apply_is_wanted(void);

/* ---- stream.c ---- */
extern void qdb_stream_start(QdbStream *stream, QdbChannel *channel);

/* Closes and forgets, acks too. */
extern void qdb_stream_close(QdbStream *stream, const char *why);
extern void qdb_stream_refuse(QdbStream *stream, bool retry, const char *fmt,...) pg_attribute_printf(3, 4);

/* Handles the frames that have arrived; may close the stream. */
extern void qdb_stream_read(QdbStream *stream);

/* Sends what fits; true: there is more to send and room for it. */
extern bool qdb_stream_send(QdbStream *stream);

/* Keepalives and deadlines. */
extern void qdb_stream_tick(QdbStream *stream, int64 now);
extern bool qdb_stream_has_member(uint64 member, const QdbStream *except);

/* ---- store.c ---- */
extern QdbStore qdb_store;

/* After the seat was looked at; ends what is served from a store that is no more. */
extern void qdb_store_refresh(void);

/*
 * A replica's: the epoch that it follows, 0 where it does not, its timeline, and up to
 * where its WAL of it is on this disk.  Without qdb_seat.
 */
extern uint64 qdb_followed_epoch(TimeLineID *timeline);
extern XLogRecPtr qdb_followed_flush(void);

/* No file shows WAL past it, and WAL up to it is on this disk. */
extern XLogRecPtr qdb_store_flush(void);

/* ---- walread.c ---- */
/* count bytes of a timeline in our history, or the store's without a seat; false with *why (QDB_REASON_SIZE bytes). */
extern bool qdb_read_wal(TimeLineID timeline, XLogRecPtr start, char *buf, size_t count, char *why);

/* ---- walbatch.c ---- */
/*
 * The frame with the WAL of a timeline from start to at most upto.  The caller
 * raises refs while it holds it.  NULL with *why (QDB_REASON_SIZE bytes).
 */
extern QdbSharedFrame *qdb_get_wal_frame(TimeLineID timeline, XLogRecPtr start, XLogRecPtr upto, char *why);
extern void qdb_forget_frames(void);
extern uint32 qdb_put_keepalive(uint8 *buf, size_t size, XLogRecPtr end, bool reply);

/* ---- walsnd.c ---- */
extern int	qdb_walsnd_claim(void); /* -1: none is free */
extern void qdb_walsnd_free(int slot);
extern void qdb_walsnd_update(const QdbStream *stream, int64 now);

/* Sees to it that XLogFlush wakes us, through one entry. */
extern void qdb_walsnd_keep_latch(bool wanted);

/* ---- retain.c ---- */
extern void qdb_retain_turn(int64 now);

/* ---- release.c ---- */
extern void qdb_count_and_release(void);

#endif							/* QDB_WAL_STREAMER_H */
