/*-------------------------------------------------------------------------
 *
 * join.c
 *		A copy of the cluster's data becomes a member: both sides.
 *
 * The joiner shows its token to any member, which has the leader commit
 * MEMBER_ADD and answers with the member id and the replicated state.  The
 * joiner stores a promise, an empty Raft folder and then its identity, and
 * goes through a crash cycle: what a member owns must hold in every process.
 *
 * The peer is "host:port" of its raft_port; the SQL side finds that out.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "storage/ipc.h"

#include "base/api_token.h"
#include "cluster/internal.h"
#include "core/join.h"

#define JOIN_US				(15 * 1000 * 1000)
#define ANSWER_US			(200 * 1000)
#define FOLLOW_US			(3 * 1000 * 1000)	/* for this member's own log
												 * to come to what the joiner
												 * knows */
#define FOLLOW_RETRY_US		(50 * 1000)

/* The joiner's side. */
static QdbChannel *channel = NULL;
static bool sent = false;
static int	join_slot = -1;
static int64 deadline_us;
static int64 cycle_us = 0;		/* joined; the crash cycle begins then */
static QdbTokenText token_shown;
static EVP_PKEY *join_key = NULL;
static uint64 incarnation;

bool
qdb_join_pending(void)
{
	return channel != NULL || cycle_us != 0;
}

QdbChannel *
qdb_join_channel(void)
{
	return channel;
}

static void
end_join(int sqlstate, const char *why, const char *hint)
{
	if (channel != NULL)
		qdb_channel_close(channel);
	channel = NULL;
	if (sqlstate != 0)
		qdb_refuse_request(join_slot, sqlstate, why, hint);
	memset(&token_shown, 0, sizeof(token_shown));
	EVP_PKEY_free(join_key);
	join_key = NULL;
}

void
qdb_start_join(int slot, const QdbRequest *request)
{
	char		peer[QDB_REQUEST_TEXT];
	char	   *token;
	char	   *port;

	strlcpy(peer, request->text, sizeof(peer));
	token = strchr(peer, ' ');
	if (token != NULL)
		*token++ = '\0';
	port = strrchr(peer, ':');
	if (port != NULL)
		*port++ = '\0';
	if (token == NULL || port == NULL || atoi(port) <= 0 || atoi(port) > 65535 ||
		!qdb_parse_token(token, &token_shown))
	{
		qdb_refuse_request(slot, ERRCODE_INVALID_PARAMETER_VALUE, "malformed peer or token",
						   "The peer is host:port, the token what quantadb_join_token() returned.");
		return;
	}
	if (channel != NULL || cycle_us != 0 || qdb_shared->joining)
	{
		qdb_refuse_request(slot, ERRCODE_OBJECT_IN_USE, "a join is under way", NULL);
		return;
	}
	if (!pg_strong_random(&incarnation, sizeof(incarnation)))
		incarnation = 0;
	incarnation = (incarnation & PG_INT64_MAX) | 1;

	/*
	 * The handshake proves that we have this key: no other request to sign is
	 * needed.
	 */
	join_key = qdb_new_key();
	channel = join_key != NULL ? qdb_channel_join(peer, atoi(port), join_key, token_shown.ca_hash) : NULL;
	SpinLockAcquire(&qdb_shared->mutex);
	qdb_shared->clone.phase = QDB_CLONE_NONE;
	SpinLockRelease(&qdb_shared->mutex);
	sent = false;
	join_slot = slot;
	deadline_us = qdb_co.now_us + JOIN_US;
	if (channel == NULL)
		end_join(ERRCODE_CONNECTION_FAILURE, "could not open a connection", NULL);
}

static void
send_join(void)
{
	QdbJoin		join = {.command_format = QDB_COMMAND_FORMAT,.state_format = QDB_STATE_FORMAT};
	uint8		buf[QDB_JOIN_MAX];
	uint32		length = sizeof(buf);

	join.token_id = token_shown.id;
	memcpy(join.secret, token_shown.secret, sizeof(join.secret));
	join.system_identifier = GetSystemIdentifier();
	join.in_recovery = RecoveryInProgress();
	join.member.incarnation = incarnation;
	strlcpy(join.member.name, qdb_node_name, sizeof(join.member.name));
	strlcpy(join.member.host, qdb_advertise_host, sizeof(join.member.host));
	join.member.sql_port = (uint16) PostPortNumber;
	join.member.raft_port = (uint16) qdb_raft_port;
	join.member.replication_port = (uint16) qdb_replication_port;
	join.member.http_port = (uint16) qdb_http_port;
	join.member.priority = qdb_priority;
	qdb_own_limits(join.limits);
	sent = qdb_join_encode(&join, buf, &length) && qdb_channel_send(channel, QDB_FRAME_JOIN, buf, length);
}

static bool
store_certificates(const QdbJoinResult *result, char *why, size_t why_size)
{
	X509	   *cert;
	X509	   *ca;
	uint8		hash[QDB_KEY_HASH_SIZE];
	bool		ok;

	if (qdb_plaintext() || qdb_company_certificates())
		return true;
	cert = qdb_certificate_from_pem(result->cert, strlen(result->cert));
	ca = qdb_certificate_from_pem(result->ca, strlen(result->ca));
	/* The authority has to be the one that the token names. */
	ok = cert != NULL && ca != NULL && X509_check_private_key(cert, join_key) == 1 &&
		X509_verify(cert, X509_get0_pubkey(ca)) == 1 && qdb_hash_certificate(ca, hash) &&
		qdb_same_bytes(hash, token_shown.ca_hash, sizeof(hash));
	if (!ok)
		strlcpy(why, "the certificate that came does not fit the token", why_size);
	else
	{
		(void) unlink(QDB_CA_KEY);	/* of another cluster, perhaps */
		ok = qdb_store_certificate(QDB_CA_CERT, ca) && qdb_store_node(join_key, cert);
		if (!ok)
			strlcpy(why, qdb_keys_error(), why_size);
	}
	X509_free(cert);
	X509_free(ca);
	return ok;
}

/* Who this node will be.  The system identifier is the cluster's. */
static void
make_identity(uint64 member, const QdbState *state)
{
	struct stat st;
	QdbIdentity *self = &qdb_co.self;

	memset(self, 0, sizeof(*self));
	strlcpy(self->cluster_id, state->cluster_id, sizeof(self->cluster_id));
	strlcpy(self->name, qdb_node_name, sizeof(self->name));
	self->member = member;
	self->system_identifier = state->system_identifier;
	self->incarnation = incarnation;
	self->boot = 1;
	if (stat(DataDir, &st) == 0)
		self->inode = st.st_ino;
}

/* The data is the cluster's already: a crash cycle, and it is a member. */
static void
join_as_copy(void)
{
	qdb_identity_store(&qdb_co.self);
	cycle_us = qdb_now_us() + ANSWER_US;
}

/*
 * The promise before the identity: a member that boots has one.  Where the data is
 * another one's, it is cloned first (clone.c).
 */
static void
store_membership(const QdbJoinResult *result, const QdbState *state)
{
	uint64		member = result->member;
	char		why[QDB_REASON_SIZE] = "";
	bool		copy = state->system_identifier == GetSystemIdentifier();

	if (qdb_shared->removed && !copy)
	{
		end_join(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "this server has the data of another cluster, which has removed it",
				 "Stop it, move \"quantadb\" out of its data directory, start it and join again.");
		return;
	}
	make_identity(member, state);
	if (!qdb_make_folder(why, sizeof(why)) ||
		!store_certificates(result, why, sizeof(why)) ||
		!qdb_raft_prepare(QDB_RAFT_DIR, member, why, sizeof(why)) ||
		(!state->epoch_open && !qdb_promise_store(state->epoch)) ||
		(!copy && !qdb_begin_joining(why, sizeof(why))))
	{
		end_join(ERRCODE_IO_ERROR, why[0] != '\0' ? why : "could not store the promise",
				 "Remove the new member from the cluster before you try again.");
		return;
	}
	qdb_keys_changed();
	if (copy)
		join_as_copy();
	ereport(LOG, (errmsg("[cluster] joined cluster %s as member %llu", qdb_co.self.cluster_id,
						 (unsigned long long) member)));
	qdb_answer_request(join_slot, member, qdb_co.self.cluster_id);
	end_join(0, NULL, NULL);
}

static void
take_result(const QdbFrame *frame)
{
	static QdbJoinResult result;
	QdbState   *state;

	if (!qdb_join_result_decode(frame->payload, frame->length, &result))
		end_join(ERRCODE_PROTOCOL_VIOLATION, "malformed answer", NULL);
	else if (result.member == 0)
		end_join(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
				 result.why[0] != '\0' ? result.why : "malformed answer", NULL);
	else
	{
		state = palloc(sizeof(QdbState));
		if (!qdb_state_decode(result.state, result.state_length, state))
			end_join(ERRCODE_PROTOCOL_VIOLATION, "malformed answer", NULL);
		else
			store_membership(&result, state);
	}
}

void
qdb_join_turn(void)
{
	QdbFrame	frame;

	if (cycle_us != 0 && qdb_co.now_us >= cycle_us)
	{
		qdb_become_member();
		qdb_effects.demote("joined");
		proc_exit(1);
	}
	if (channel == NULL)
		return;
	qdb_channel_drive(channel);
	if (qdb_channel_state(channel) == QDB_CHANNEL_UP && !sent)
		send_join();
	if (qdb_channel_receive(channel, &frame))
	{
		if (frame.type == QDB_FRAME_JOIN_RESULT)
			take_result(&frame);
		else
			end_join(ERRCODE_PROTOCOL_VIOLATION, "the peer does not speak this protocol", NULL);
	}
	else if (qdb_channel_state(channel) == QDB_CHANNEL_FAILED)
	{
		char		why[QDB_REASON_SIZE];

		snprintf(why, sizeof(why), "the connection to the peer failed: %s", qdb_channel_error(channel));
		end_join(ERRCODE_CONNECTION_FAILURE, why, NULL);
	}
	else if (qdb_co.now_us > deadline_us)
		end_join(ERRCODE_CONNECTION_FAILURE, "no answer from the peer in time", NULL);
}

/* ---- the member's side ---- */

/*
 * The joiner's certificate, for the key that it showed in the handshake, and
 * the authority's.  Only once MEMBER_ADD is applied: the token is used up then.
 */
static bool
issue_certificates(QdbJoinResult *result, const QdbStranger *stranger)
{
	const QdbPeerCert *peer = qdb_channel_peer(stranger->channel);
	const QdbMember *member = qdb_member_by_id(qdb_co.state, result->member);
	X509	   *ca;
	bool		ok;

	if (member == NULL || peer == NULL || qdb_company_certificates())
		return true;
	ca = qdb_load_certificate(QDB_CA_CERT);
	ok = memcmp(peer->key_hash, member->key_hash, QDB_KEY_HASH_SIZE) == 0 && ca != NULL &&
		qdb_sign_joiner(member, X509_get0_pubkey(peer->cert), result->cert, sizeof(result->cert)) > 0 &&
		qdb_certificate_to_pem(ca, result->ca, sizeof(result->ca)) > 0;
	if (!ok)
		ereport(LOG, (errmsg("[cluster] could not issue a certificate: %s", qdb_keys_error())));
	X509_free(ca);
	return ok;
}

static void
answer_joiner(QdbStranger *stranger, uint64 member, const char *why)
{
	QdbJoinResult *result = palloc0(sizeof(QdbJoinResult));
	uint32		size = QDB_STATE_MAX_BYTES + sizeof(QdbJoinResult);
	uint8	   *state = palloc(QDB_STATE_MAX_BYTES);
	uint8	   *buf = palloc(size);

	stranger->vouched = false;
	result->member = member;
	strlcpy(result->why, why, sizeof(result->why));
	result->state = state;
	result->state_length = QDB_STATE_MAX_BYTES;
	if (!issue_certificates(result, stranger))
	{
		qdb_channel_close(stranger->channel);
		stranger->channel = NULL;
	}
	else
	{
		if (member == 0)
			result->state_length = 0;
		if ((member == 0 || qdb_state_encode(qdb_co.state, state, &result->state_length)) &&
			qdb_join_result_encode(result, buf, &size))
			(void) qdb_channel_send(stranger->channel, QDB_FRAME_JOIN_RESULT, buf, size);
	}
	pfree(buf);
	pfree(state);
	pfree(result);
}

/* True when the joiner is a member in this node's own state, and was answered. */
static bool
answer_added(QdbStranger *stranger)
{
	/* The incarnation is random: who names it is the one that was added. */
	for (uint32 i = 0; i < qdb_co.state->nmembers; i++)
	{
		if (qdb_co.state->members[i].incarnation != stranger->incarnation)
			continue;
		stranger->added = false;
		answer_joiner(stranger, qdb_co.state->members[i].id, "");
		return true;
	}
	return false;
}

/*
 * This member's own log is behind the one that gave the token out, or another joiner
 * was first: both pass.
 */
static bool
passes(QdbStranger *stranger, QdbResult result)
{
	if ((result != QDB_BAD_TOKEN && result != QDB_STALE) || qdb_co.now_us > stranger->follow_until_us)
		return false;
	stranger->retry_us = qdb_co.now_us + FOLLOW_RETRY_US;
	return true;
}

static void
add_done(uint64 number, uint64 serial, bool known, QdbResult result)
{
	QdbStranger *stranger = qdb_mesh_stranger((int) number, serial);

	if (stranger == NULL || answer_added(stranger))
		return;
	/* The leader has it; our own log follows in a moment. */
	if (known && (result == QDB_OK || result == QDB_UNCHANGED))
		stranger->added = true;
	else if (!known || !passes(stranger, result))
		answer_joiner(stranger, 0, known ? qdb_result_text(result) :
					  "no answer from the Raft leader in time");
}

/* Reads a JOIN into the command; NULL when well-formed and acceptable. */
static const char *
judge_join(const QdbFrame *frame, QdbCommand *command)
{
	QdbJoin		join;
	bool		whole = qdb_join_decode(frame->payload, frame->length, &join);
	static char why[QDB_REASON_SIZE];
	int32		wanted[QDB_NLIMITS];

	if (join.command_format != QDB_COMMAND_FORMAT || join.state_format != QDB_STATE_FORMAT)
		return "its version of quantadb does not fit this cluster's";
	command->token.id = join.token_id;
	command->member = join.member;
	if (!whole || !qdb_hash_secret(join.secret, command->token.secret_hash))
		return "malformed request";
	if (join.system_identifier == GetSystemIdentifier() && !join.in_recovery)
		return "it is a copy of the cluster's data that was started without standby.signal: "
			"create that file and restart it, or join with a fresh server";
	if (qdb_member_by_name(qdb_co.state, join.member.name) != NULL)
	{
		snprintf(why, sizeof(why), "a member is named \"%s\" already; if it is gone for good, "
				 "SELECT quantadb_remove('%s') there and join again", join.member.name, join.member.name);
		return why;
	}
	qdb_wanted_limits(wanted);
	return qdb_limits_suffice(join.limits, wanted, why) ? NULL : why;
}

/* Commits MEMBER_ADD, or waits until this member's log has come so far. */
static void
try_join(QdbStranger *stranger)
{
	QdbCommand *command = &stranger->command;
	const char *why = NULL;

	stranger->retry_us = 0;

	/*
	 * Before anything is written to the Raft log: strangers must not make it
	 * grow.
	 */
	if (qdb_find_token(qdb_co.state, &command->token, qdb_unix_us()) == NULL)
	{
		if (passes(stranger, QDB_BAD_TOKEN))
			return;
		why = qdb_result_text(QDB_BAD_TOKEN);
	}
	else if (!qdb_can_sign())
		why = "this member cannot issue certificates: join through a voter";
	if (why != NULL)
	{
		answer_joiner(stranger, 0, why);
		return;
	}
	command->member.id = qdb_co.state->next_member_id;
	command->membership = qdb_co.state->membership;
	command->time_us = qdb_unix_us();
	stranger->vouched = true;
	if (!qdb_propose(command, add_done, qdb_mesh_stranger_number(stranger), stranger->serial))
		answer_joiner(stranger, 0, "too many commands are under way");
}

void
qdb_receive_join(QdbStranger *stranger, const QdbFrame *frame)
{
	const QdbPeerCert *peer = qdb_channel_peer(stranger->channel);
	QdbCommand *command = &stranger->command;
	const char *why;

	memset(command, 0, sizeof(*command));
	stranger->joining = true;
	why = judge_join(frame, command);
	if (why != NULL)
	{
		answer_joiner(stranger, 0, why);
		return;
	}
	if (peer != NULL && !qdb_company_certificates())
		memcpy(command->member.key_hash, peer->key_hash, sizeof(peer->key_hash));
	stranger->incarnation = command->member.incarnation;
	stranger->follow_until_us = qdb_co.now_us + FOLLOW_US;
	command->type = QDB_CMD_MEMBER_ADD;
	strlcpy(command->node, command->member.name, sizeof(command->node));
	try_join(stranger);
}

void
qdb_stranger_turn(QdbStranger *stranger)
{
	if (stranger->added)
		(void) answer_added(stranger);
	else if (stranger->retry_us != 0 && qdb_co.now_us >= stranger->retry_us)
		try_join(stranger);
}
