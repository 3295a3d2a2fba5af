/*-------------------------------------------------------------------------
 *
 * transfer.h
 *		What a resynchronising node asks for on the replication port, and the
 *		list of files that a clone begins with.
 *
 * No request carries a path: a relation's file is named by its numbers, any other
 * file by its number in the manifest that the server made for this connection.
 * Paths come only in manifests, and both sides hold them against the
 * same list of what may leave a data directory (qdb_served_path_ok).
 *
 *	FILES_HELLO		-> FILES_WELCOME or STREAM_REFUSED
 *	FILES_REQUEST	-> FILES_DATA, in the order of the requests
 *
 * A manifest is a sequence of entries, the last of kind END.  Encoders return
 * false when the buffer is too small, decoders when the bytes are not exactly
 * such a thing.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CORE_TRANSFER_H
#define QDB_CORE_TRANSFER_H

#include "core/frame.h"
#include "core/state.h"

#define QDB_TRANSFER_VERSION	1	/* another one is refused in the greeting */
#define QDB_TRANSFER_CHUNK		(128 * 1024)	/* most that one answer
												 * carries */
#define QDB_TRANSFER_MAX_BLOCKS	16	/* blocks in one request */
#define QDB_SERVED_PATH_SIZE	256 /* with the terminating zero */
#define QDB_LOCATION_SIZE		512 /* of a tablespace */
#define QDB_NLIMITS				5

#define QDB_FILES_HELLO_MAX		512
#define QDB_FILES_WELCOME_MAX	512
#define QDB_FILES_REQUEST_MAX	128
#define QDB_MANIFEST_ENTRY_MAX	(32 + QDB_LOCATION_SIZE)

typedef enum QdbFilesPurpose
{
	QDB_FILES_CLONE = 1,
	QDB_FILES_REWIND
} QdbFilesPurpose;

typedef struct QdbFilesHello
{
	uint32_t	version;
	uint8_t		purpose;		/* QdbFilesPurpose */
	char		cluster_id[QDB_CLUSTER_ID_SIZE];
	uint64_t	member;
	uint64_t	incarnation;
	uint64_t	boot;
	uint64_t	epoch;			/* of the seat that is asked */
} QdbFilesHello;

/* STREAM_REFUSED, whatever was asked for. */
typedef struct QdbStreamRefusal
{
	bool		retry;			/* may pass by itself: try again soon */
	char		text[QDB_REASON_SIZE];
} QdbStreamRefusal;

/* What has to be equal on both sides, or not less on the asking one. */
typedef struct QdbFilesWelcome
{
	uint64_t	system_identifier;
	uint64_t	epoch;
	uint32_t	timeline;
	uint64_t	flush;			/* read after the asking member's acks were
								 * forgotten */
	uint32_t	control_version;
	uint32_t	catalog_version;
	uint32_t	block_size;
	uint32_t	segment_blocks; /* of a relation file */
	uint32_t	wal_block_size;
	uint32_t	wal_segment_size;
	uint32_t	limits[QDB_NLIMITS];	/* max_connections, worker_processes,
										 * wal_senders, prepared_transactions,
										 * locks_per_transaction */
} QdbFilesWelcome;

typedef enum QdbMisfitKind
{
	QDB_MISFIT_LIMIT = 1,		/* a setting that is too low */
	QDB_MISFIT_BUILD,			/* another version, or built another way */
	QDB_MISFIT_INITDB			/* chosen when the server was made */
} QdbMisfitKind;

typedef struct QdbMisfit
{
	QdbMisfitKind kind;
	const char *what;
	uint32_t	theirs;
	uint32_t	ours;
} QdbMisfit;

/* Can a server that would say ours not use the data of one that says theirs?  *misfit: why. */
extern bool qdb_welcome_misfit(const QdbFilesWelcome *theirs, const QdbFilesWelcome *ours, QdbMisfit *misfit);

typedef enum QdbTransferKind
{
	QDB_TRANSFER_MANIFEST = 1,	/* make one; flag: after a checkpoint, WAL is
								 * kept from it on; lsn: take up again from
								 * there if the WAL is still here */
	QDB_TRANSFER_READ_MANIFEST, /* offset, length */
	QDB_TRANSFER_FILE,			/* id, offset, length */
	QDB_TRANSFER_RELATION,		/* relation with segment, offset, length */
	QDB_TRANSFER_BLOCKS,		/* relation without segment, blocks */
	QDB_TRANSFER_WAL,			/* timeline, lsn, length */
	QDB_TRANSFER_HISTORY,		/* timeline */
	QDB_TRANSFER_CONTROL,
	QDB_TRANSFER_POSITION
} QdbTransferKind;

typedef struct QdbRelationName
{
	uint32_t	tablespace;
	uint32_t	database;
	uint32_t	relation;
	uint8_t		fork;
	uint32_t	segment;
} QdbRelationName;

/* Each kind uses the fields named above; the others are zero. */
typedef struct QdbTransferRequest
{
	uint8_t		kind;			/* QdbTransferKind */
	bool		flag;
	uint32_t	id;
	uint32_t	timeline;
	uint64_t	lsn;
	uint64_t	offset;
	uint32_t	length;
	QdbRelationName relation;
	uint32_t	nblocks;
	uint32_t	blocks[QDB_TRANSFER_MAX_BLOCKS];
} QdbTransferRequest;

typedef enum QdbTransferStatus
{
	QDB_TRANSFER_OK = 0,
	QDB_TRANSFER_GONE,			/* no such file (any more) */
	QDB_TRANSFER_FAILED			/* the bytes are the reason */
} QdbTransferStatus;

/*
 * The answer: the number of the request on its connection, from 0 on, so that a lost
 * answer cannot be taken for the next one's; a status, a mask, the bytes.  Less
 * than was asked for is the end of the file.  mask (of BLOCKS): bit i is set when
 * block i is there; only these follow.
 */
typedef struct QdbTransferAnswer
{
	uint32_t	number;
	uint8_t		status;			/* QdbTransferStatus */
	uint32_t	mask;
	const uint8_t *data;
	uint32_t	length;
} QdbTransferAnswer;

#define QDB_TRANSFER_ANSWER_HEADER	9

/* The bytes of an answer to MANIFEST. */
typedef struct QdbManifestInfo
{
	uint64_t	length;			/* of the manifest */
	uint64_t	nfiles;
	uint64_t	bytes;			/* of all files */
	uint32_t	timeline;		/* where replay has to start; 0 without a
								 * checkpoint */
	uint64_t	redo;
	uint64_t	checkpoint;
	bool		resumed;		/* redo is what the request named */
} QdbManifestInfo;

/* The bytes of an answer to POSITION. */
typedef struct QdbSourcePosition
{
	uint64_t	epoch;
	uint32_t	timeline;
	uint64_t	flush;
	uint64_t	quorum;
} QdbSourcePosition;

typedef enum QdbEntryKind
{
	QDB_ENTRY_END = 1,			/* size: bytes of all files */
	QDB_ENTRY_RELATION,
	QDB_ENTRY_FILE,				/* id, path, mode, size */
	QDB_ENTRY_DIRECTORY,		/* path; parents come first */
	QDB_ENTRY_TABLESPACE,		/* id: its oid; path: its location */
	QDB_ENTRY_LOCALE			/* path: name of one that a database uses */
} QdbEntryKind;

typedef struct QdbManifestEntry
{
	uint8_t		kind;			/* QdbEntryKind */
	uint32_t	id;
	uint16_t	mode;
	uint64_t	size;
	QdbRelationName relation;
	char		path[QDB_LOCATION_SIZE];
} QdbManifestEntry;

extern bool qdb_refusal_encode(const QdbStreamRefusal *refusal, uint8_t *buf, uint32_t *len);
extern bool qdb_refusal_decode(const uint8_t *buf, uint32_t len, QdbStreamRefusal *refusal);
extern bool qdb_files_hello_encode(const QdbFilesHello *hello, uint8_t *buf, uint32_t *len);
extern bool qdb_files_hello_decode(const uint8_t *buf, uint32_t len, QdbFilesHello *hello);
extern bool qdb_files_welcome_encode(const QdbFilesWelcome *welcome, uint8_t *buf, uint32_t *len);
extern bool qdb_files_welcome_decode(const uint8_t *buf, uint32_t len, QdbFilesWelcome *welcome);
extern bool qdb_transfer_request_encode(const QdbTransferRequest *request, uint8_t *buf, uint32_t *len);
extern bool qdb_transfer_request_decode(const uint8_t *buf, uint32_t len, QdbTransferRequest *request);
extern bool qdb_manifest_info_encode(const QdbManifestInfo *info, uint8_t *buf, uint32_t *len);
extern bool qdb_manifest_info_decode(const uint8_t *buf, uint32_t len, QdbManifestInfo *info);
extern bool qdb_source_position_encode(const QdbSourcePosition *position, uint8_t *buf, uint32_t *len);
extern bool qdb_source_position_decode(const uint8_t *buf, uint32_t len, QdbSourcePosition *position);

/* Puts number, status and mask; the bytes follow. */
extern void qdb_transfer_answer_begin(uint8_t *buf, uint32_t number, uint8_t status, uint32_t mask);
extern bool qdb_transfer_answer_decode(const uint8_t *buf, uint32_t len, QdbTransferAnswer *answer);

extern bool qdb_manifest_entry_encode(const QdbManifestEntry *entry, uint8_t *buf, uint32_t *len);

/*
 * Reads one entry; 1: there, *used says how long it was; 0: more bytes are
 * needed; -1: malformed, or a path that may not be served.
 */
extern int	qdb_manifest_entry_decode(const uint8_t *buf, uint32_t len, QdbManifestEntry *entry, uint32_t *used);

/*
 * May this file or folder leave, or enter, a data directory?  Only what is listed:
 * relative, inside the folders that make up a cluster's data, no temporary
 * files.  Relations are files too here.
 */
extern bool qdb_served_path_ok(const char *path);

/* Folders at the top whose content is served, and those that are only made. */
extern const char *const qdb_served_folders[];	/* ends with NULL */
extern const char *const qdb_empty_folders[];

/* Numbers that a relation's file can have. */
extern bool qdb_relation_name_ok(const QdbRelationName *name);

#endif							/* QDB_CORE_TRANSFER_H */
