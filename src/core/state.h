/*-------------------------------------------------------------------------
 *
 * state.h
 *		The replicated state, and the commands that change it.
 *
 * Every member holds the same QdbState, because every member applies the same
 * commands in the order of the Raft log.  Applying is a plain function of the
 * state and the command: no clock, no allocator, no I/O.  A command that does
 * not fit the state any more (an old epoch, a closed change) is refused by all
 * members alike and changes nothing, so a command may be proposed twice.
 *
 * The structs have fixed sizes: shared memory holds a copy, and a snapshot is
 * the encoded state.  On the wire and on disk only the encodings of
 * state_codec.c exist, never the structs.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CORE_STATE_H
#define QDB_CORE_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QDB_STATE_FORMAT		1	/* snapshots; a mismatch is refused */
#define QDB_COMMAND_FORMAT		1	/* log entries; a mismatch is refused */

#define QDB_MAX_MEMBERS			32
#define QDB_MAX_GRANTS			64	/* newest kept */
#define QDB_MAX_TOKENS			16
#define QDB_MAX_API_TOKENS		32
#define QDB_MAX_JOURNAL			128 /* newest kept */
#define QDB_NAME_SIZE			64	/* with the terminating zero */
#define QDB_HOST_SIZE			128
#define QDB_REASON_SIZE			256
#define QDB_VALUE_SIZE			512
#define QDB_CLUSTER_ID_SIZE		37	/* UUID text and zero */
#define QDB_KEY_HASH_SIZE		32	/* SHA-256 of a public key */
#define QDB_SECRET_HASH_SIZE	32	/* SHA-256 */
#define QDB_MAX_WEBHOOKS		4
#define QDB_WEBHOOK_SECRET_SIZE	129
#define QDB_COMMAND_MAX_BYTES	2048
#define QDB_STATE_MAX_BYTES		(256 * 1024)

typedef enum QdbRole
{
	QDB_ROLE_REPLICA = 0,		/* no vote, serves reads */
	QDB_ROLE_LEARNER = 1,		/* becomes a voter once it has caught up */
	QDB_ROLE_VOTER = 2
} QdbRole;

typedef struct QdbMember
{
	uint64_t	id;				/* Raft id, never used twice */
	uint64_t	incarnation;	/* of the member's data directory */
	char		name[QDB_NAME_SIZE];
	char		host[QDB_HOST_SIZE];
	uint16_t	sql_port;
	uint16_t	raft_port;
	uint16_t	replication_port;
	uint16_t	http_port;
	uint8_t		role;			/* QdbRole */
	bool		alone;			/* a learner that need not wait for a second
								 * one to vote: it was asked for */
	int32_t		priority;		/* 0: never primary */

	/*
	 * The public keys that speak for it: the current one, and while a new one
	 * is taken into use, the one before.  Zero: a company's certificates.
	 */
	uint8_t		key_hash[QDB_KEY_HASH_SIZE];
	uint8_t		previous_key_hash[QDB_KEY_HASH_SIZE];
} QdbMember;

/* One seat grant: an epoch has at most one, and a timeline at most one. */
typedef struct QdbGrant
{
	uint64_t	epoch;
	uint32_t	timeline;
	uint32_t	parent_timeline;	/* 0 for the first epoch */
	uint64_t	fork;			/* LSN; of the epoch record if no parent */
	uint64_t	holder;			/* member id */
	uint64_t	incarnation;
	uint64_t	boot;
	bool		opened;			/* its epoch record reached a quorum */
	uint32_t	lease_ms;		/* length of the lease under this grant */
} QdbGrant;

/* A voter's durable answer to OPEN_EPOCH. */
typedef struct QdbReport
{
	uint64_t	member;
	uint64_t	incarnation;
	uint64_t	boot;
	uint64_t	last_epoch;		/* epoch that owns the last byte */
	uint32_t	last_timeline;	/* timeline that owns the last byte */
	uint64_t	end_lsn;		/* true end of the fsynced WAL */
} QdbReport;

/* A move of the seat that was asked for; gone once a seat is granted. */
typedef struct QdbMove
{
	uint64_t	target;			/* member; 0: none */
	uint64_t	epoch;			/* the greatest when it was asked for */
	bool		force;			/* takes the seat also where another has more
								 * WAL */
	int64_t		time_us;		/* Unix time at the proposer */
} QdbMove;

/*
 * A voter that has the most WAL and cannot hold the seat hands what the next
 * best lacks to it; both under the promise of the open epoch.
 */
typedef struct QdbDonation
{
	uint64_t	epoch;			/* 0: none; an older one than the open epoch
								 * is over */
	uint64_t	donor;
	uint64_t	taker;
} QdbDonation;

typedef struct QdbToken
{
	uint64_t	id;				/* 0: slot is free */
	uint8_t		secret_hash[QDB_SECRET_HASH_SIZE];
	uint8_t		role;			/* QdbRole the joiner ends up with */
	int64_t		expires_us;		/* Unix time */
} QdbToken;

/* What a bearer of a token may do over HTTP. */
typedef enum QdbApiRole
{
	QDB_API_NONE = 0,
	QDB_API_MONITOR = 1,		/* read everything */
	QDB_API_ADMIN = 2			/* and change the cluster */
} QdbApiRole;

typedef struct QdbApiToken
{
	uint64_t	id;				/* 0: slot is free */
	uint8_t		secret_hash[QDB_SECRET_HASH_SIZE];
	uint8_t		role;			/* QdbApiRole */
	int64_t		created_us;		/* Unix time; set when applied */
	int64_t		expires_us;
	char		creator[QDB_NAME_SIZE]; /* SQL role */
} QdbApiToken;

typedef struct QdbJournalEntry
{
	uint64_t	number;			/* 1, 2, ... */
	int64_t		time_us;		/* Unix time at the proposer */
	uint64_t	epoch;
	char		event[32];		/* "seat", "open_epoch", "join", ... */
	char		node[QDB_NAME_SIZE];
	char		reason[QDB_REASON_SIZE];
} QdbJournalEntry;

typedef struct QdbClusterSettings
{
	uint32_t	lease_ms;		/* lease_duration */
	uint32_t	failover_ms;	/* failover_timeout */
	uint32_t	open_ms;		/* open_timeout */
	uint32_t	min_failover_ms;	/* min_failover_interval */
	bool		auto_failover;	/* false while paused */

	/*
	 * durability: async gives up I5 and I7.  A switch is a numbered change;
	 * async_before is what holds under the number before, while that is open.
	 */
	bool		async;
	bool		async_before;
	uint64_t	max_lag_bytes;	/* max_lag_on_failover, under async */

	/*
	 * URLs, separated by one space; empty: none.  They and the secret are
	 * shown to nobody: a URL often carries a secret in its path.
	 */
	char		webhooks[QDB_VALUE_SIZE];
	char		webhook_secret[QDB_WEBHOOK_SECRET_SIZE];
} QdbClusterSettings;

typedef struct QdbState
{
	char		cluster_id[QDB_CLUSTER_ID_SIZE];	/* empty: not initialized */
	char		cluster_name[QDB_NAME_SIZE];
	uint64_t	system_identifier;

	uint32_t	nmembers;
	QdbMember	members[QDB_MAX_MEMBERS];
	uint64_t	next_member_id;

	/*
	 * Membership (I13).  previous_roles are the roles under number - 1; they
	 * count while change_open, because a failover then needs majorities of
	 * both.  A member without an entry under the previous number has
	 * previous_role REPLICA there; a removed one is kept in removed.
	 */
	uint64_t	membership;
	bool		change_open;
	uint8_t		previous_roles[QDB_MAX_MEMBERS];
	bool		has_removed;
	QdbMember	removed;

	uint64_t	epoch;			/* greatest opened or granted */
	bool		epoch_open;		/* OPEN_EPOCH applied, no SEAT of it yet */
	int64_t		epoch_time_us;	/* when it was opened */
	uint32_t	nreports;		/* for the open epoch; kept after SEAT */
	QdbReport	reports[QDB_MAX_MEMBERS];
	uint32_t	ngrants;		/* ascending by epoch */
	QdbGrant	grants[QDB_MAX_GRANTS];
	bool		seat_released;	/* the current grant's holder gave it up */
	int64_t		suspected_us;	/* Unix time of the last failover that nothing
								 * but silence caused; 0 never */
	QdbMove		move;
	QdbDonation donation;
	uint32_t	greatest_timeline;	/* ever granted */

	/*
	 * What an operator asks after a failover.  Unix times of the proposers'
	 * clocks, so a length is as exact as these agree; nothing is decided by
	 * them.
	 */
	int64_t		outage_since_us;	/* no primary since then; 0: there is one */
	int64_t		last_outage_us; /* length of the last one; 0: none yet */
	int64_t		last_open_us;	/* when the current primary opened */

	/* Member ids that the leader has said to be lost; 0 unused. */
	uint64_t	lost[QDB_MAX_MEMBERS];

	/* By place in settings.webhooks: journal number up to which it was told. */
	uint64_t	webhook_told[QDB_MAX_WEBHOOKS];

	QdbClusterSettings settings;
	QdbToken	tokens[QDB_MAX_TOKENS];
	QdbApiToken api_tokens[QDB_MAX_API_TOKENS];
	uint64_t	key_rotation;	/* members whose certificate has a smaller one
								 * make new keys */

	uint64_t	journal_next;	/* number of the next entry */
	uint32_t	njournal;		/* journal[(number - 1) % QDB_MAX_JOURNAL] */
	QdbJournalEntry journal[QDB_MAX_JOURNAL];
} QdbState;

typedef enum QdbCommandType
{
	QDB_CMD_INIT = 1,			/* member, grant, text = cluster name, value =
								 * cluster id, system_identifier */
	QDB_CMD_NOTE,				/* journal entry: event in value, node and
								 * text */
	QDB_CMD_OPEN_EPOCH,			/* epoch = state's + 1; flag: on suspicion */
	QDB_CMD_REPORT,				/* epoch, report */
	QDB_CMD_SEAT,				/* grant (of the open epoch) */
	QDB_CMD_GATE_OPEN,			/* grant.{epoch,holder,incarnation,boot} */
	QDB_CMD_RELEASE,			/* same: the holder gives its seat up */
	QDB_CMD_MEMBER_ADD,			/* member (id = next_member_id), token */
	QDB_CMD_MEMBER_UPDATE,		/* member: address, priority */
	QDB_CMD_MEMBER_ROLE,		/* member.id, member.role, membership; flag:
								 * alone */
	QDB_CMD_MEMBER_REMOVE,		/* member.id, membership */
	QDB_CMD_MEMBERSHIP_CLOSE,	/* membership */
	QDB_CMD_SETTING,			/* node = name, value */
	QDB_CMD_TOKEN_ADD,			/* token */
	QDB_CMD_API_TOKEN_ADD,		/* api_token */
	QDB_CMD_MEMBER_KEY,			/* member: id, incarnation, key_hash, and the
								 * one in use as previous_key_hash; zero: the
								 * old one is not needed any more */
	QDB_CMD_ROTATE_KEYS,		/* all members make new keys */
	QDB_CMD_API_TOKEN_REVOKE,	/* api_token.id */
	QDB_CMD_MEMBER_LOST,		/* member.id, text */
	QDB_CMD_MEMBER_BACK,		/* member.id, text */
	QDB_CMD_WEBHOOK_TOLD,		/* value = URL, number */
	QDB_CMD_MOVE,				/* epoch = state's, member.id = target, flag =
								 * force; target 0: given up, text says why */
	QDB_CMD_DONATE				/* epoch, member.id = taker, grant.holder =
								 * donor */
} QdbCommandType;

/* All commands in one struct; each uses the fields named above. */
typedef struct QdbCommand
{
	uint8_t		type;			/* QdbCommandType */
	int64_t		time_us;		/* Unix time at the proposer */
	uint64_t	epoch;
	uint64_t	membership;
	QdbMember	member;
	QdbGrant	grant;
	QdbReport	report;
	QdbToken	token;
	QdbApiToken api_token;
	bool		flag;
	char		node[QDB_NAME_SIZE];
	char		value[QDB_VALUE_SIZE];
	char		text[QDB_REASON_SIZE];	/* reason for the journal */
	uint64_t	system_identifier;	/* INIT only */
	int64_t		since_us;		/* OPEN_EPOCH, RELEASE: nobody writes since
								 * then (Unix time); 0 unknown */
	uint64_t	number;			/* journal number */
} QdbCommand;

typedef enum QdbResult
{
	QDB_OK = 0,
	QDB_UNCHANGED,				/* a repetition; the state has it already */
	QDB_STALE,					/* epoch, boot or membership was superseded */
	QDB_NOT_INITIALIZED,
	QDB_ALREADY_INITIALIZED,
	QDB_NO_MAJORITY,			/* reports missing, or not the maximum (I6) */
	QDB_NO_MEMBER,
	QDB_DUPLICATE_NAME,
	QDB_TOO_MANY,
	QDB_BAD_TOKEN,				/* unknown, used or expired */
	QDB_CHANGE_OPEN,			/* a membership change or an epoch is open */
	QDB_LAST_VOTER,				/* would leave no voter */
	QDB_HOLDS_SEAT,				/* not while it is the primary */
	QDB_NOT_VOTER,
	QDB_PRIORITY_ZERO,
	QDB_PAUSED,
	QDB_MOVE_OPEN,				/* another move of the seat is under way */
	QDB_BAD_VALUE,
	QDB_MALFORMED
} QdbResult;

extern void qdb_state_init(QdbState *state);

/* Apply one command; on anything but QDB_OK the state is unchanged. */
extern QdbResult qdb_state_apply(QdbState *state, const QdbCommand *command);
extern const char *qdb_result_text(QdbResult result);

/* What a survivor brings to a new cluster; see state_recover.c. */
typedef struct QdbRecovery
{
	uint64_t	member;			/* the survivor's id, which it keeps */
	uint64_t	promised;		/* greatest epoch that it has promised */
	uint32_t	skip_timelines; /* numbers that the new cluster leaves out */
	int64_t		time_us;
	char		cluster_id[QDB_CLUSTER_ID_SIZE];
	char		cluster_name[QDB_NAME_SIZE];
	uint8_t		key_hash[QDB_KEY_HASH_SIZE];
} QdbRecovery;

/* On anything but QDB_OK the state is unchanged. */
extern QdbResult qdb_state_recover(QdbState *state, const QdbRecovery *recovery);

/*
 * Encode into buf, which has room for *len bytes; *len becomes the number
 * used, always a multiple of 8 (libraft wants that).  False: no room.
 */
extern bool qdb_command_encode(const QdbCommand *command, uint8_t *buf, size_t *len);

/* False for anything that qdb_command_encode would not have written. */
extern bool qdb_command_decode(const uint8_t *buf, size_t len, QdbCommand *command);
extern bool qdb_state_encode(const QdbState *state, uint8_t *buf, size_t *len);
extern bool qdb_state_decode(const uint8_t *buf, size_t len, QdbState *state);

/*
 * May commits have been acknowledged without a quorum?  True until a switch back
 * to quorum is closed.
 */
extern bool qdb_is_async(const QdbState *state);

/*
 * Would the state take this value, as far as that needs no look at it?  false: *why, e.g. what the
 * setting is.
 */
extern bool qdb_check_setting(const char *name, const char *value, char *why, size_t size);

/* Look-ups; NULL when there is none. */
extern const QdbMember *qdb_member_by_id(const QdbState *state, uint64_t id);
extern uint32_t qdb_count_voters(const QdbState *state);
extern const QdbMember *qdb_member_by_name(const QdbState *state, const char *name);
extern const QdbGrant *qdb_grant_of_epoch(const QdbState *state, uint64_t epoch);
extern const QdbGrant *qdb_grant_of_timeline(const QdbState *state, uint32_t timeline);

/* The grant of state->epoch; NULL while that epoch is open. */
extern const QdbGrant *qdb_current_grant(const QdbState *state);
extern const QdbReport *qdb_report_of(const QdbState *state, uint64_t member);

/* The stored join token with this id and secret hash, unless it has expired. */
extern const QdbToken *qdb_find_token(const QdbState *state, const QdbToken *token, int64_t now_us);

/* The same for HTTP. */
extern const QdbApiToken *qdb_find_api_token(const QdbState *state, uint64_t id,
											 const uint8_t *secret_hash, int64_t now_us);

/*
 * The next URL of settings.webhooks, which moves *list behind it; url has room for
 * QDB_VALUE_SIZE bytes.  False: there is none.
 */
extern bool qdb_next_webhook(const char **list, char *url);

/* The host in a URL, with its port: neither path nor user, which may be secret. */
extern const char *qdb_url_host(const char *url, size_t *length);

/* Compares in constant time. */
extern bool qdb_same_bytes(const uint8_t *a, const uint8_t *b, size_t len);

#endif							/* QDB_CORE_STATE_H */
