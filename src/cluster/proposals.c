/*-------------------------------------------------------------------------
 *
 * proposals.c
 *		Commits commands in Raft from any node.
 *
 * Only the leader can append, so a proposal travels to it and its result comes back,
 * both under the sender's request number.  What was sent and not answered in
 * time is unknown, not failed: commands may be repeated, and their senders know.
 * A proposal that has not been sent to anyone waits for a leader.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "cluster/internal.h"

#define MAX_PROPOSALS		64
#define PROPOSAL_US			(3 * 1000 * 1000)
#define RESEND_US			(20 * 1000)

/* Status in PROPOSE_RESULT. */
#define RESULT_KNOWN		0
#define RESULT_UNKNOWN		1
#define RESULT_NOT_LEADER	2

typedef struct Proposal
{
	uint64		id;				/* 0: slot unused */
	bool		sent;
	bool		finished;		/* Raft has answered: known, result */
	uint64		seen_at;		/* our own log shows it from this index on */
	bool		known;
	QdbResult	result;
	uint64		origin;			/* peer that forwarded it, 0 local */
	uint64		origin_id;
	int64		created_us;
	int64		deadline_us;
	int64		next_send_us;
	QdbProposalDone done;
	uint64		a;
	uint64		b;
	uint32		length;
	uint8		bytes[QDB_COMMAND_MAX_BYTES];
} Proposal;

static Proposal proposals[MAX_PROPOSALS];
static uint64 next_id = 0;

static Proposal *
make_proposal(QdbProposalDone done, uint64 a, uint64 b)
{
	for (int i = 0; i < MAX_PROPOSALS; i++)
	{
		Proposal   *proposal = &proposals[i];

		if (proposal->id != 0)
			continue;
		/* Answers to an earlier process of this node must not match. */
		if (next_id == 0)
			next_id = (uint64) qdb_co.started_us << 8;
		memset(proposal, 0, offsetof(Proposal, bytes));
		proposal->id = ++next_id;
		proposal->created_us = qdb_now_us();
		proposal->deadline_us = proposal->created_us + PROPOSAL_US;
		proposal->done = done;
		proposal->a = a;
		proposal->b = b;
		return proposal;
	}
	return NULL;
}

static Proposal *
find_proposal(uint64 id)
{
	for (int i = 0; id != 0 && i < MAX_PROPOSALS; i++)
	{
		if (proposals[i].id == id)
			return &proposals[i];
	}
	return NULL;
}

/* With it goes the index up to which the sender's log was applied. */
static void
send_result(uint64 member, uint64 id, uint8 status, QdbResult result)
{
	QdbProposalResult answer = {.id = id,.status = status,.result = (uint8) result,
	.applied = qdb_co.raft != NULL ? qdb_raft_applied_index(qdb_co.raft) : 0};
	uint8		buf[QDB_PEER_MAX_BYTES];
	uint32		length = sizeof(buf);

	if (qdb_proposal_result_encode(&answer, buf, &length))
		(void) qdb_mesh_send(member, QDB_FRAME_PROPOSE_RESULT, buf, length);
}

static void
finish(Proposal *proposal, bool known, QdbResult result)
{
	Proposal	copy;

	/* The slot is free before the callback, which may propose again. */
	memcpy(&copy, proposal, offsetof(Proposal, bytes));
	proposal->id = 0;
	if (known && copy.origin == 0)
		qdb_observe(&qdb_shared->counters.proposals, qdb_now_us() - copy.created_us);
	if (copy.origin != 0)
		send_result(copy.origin, copy.origin_id, known ? RESULT_KNOWN : RESULT_UNKNOWN, result);
	if (copy.done != NULL)
		copy.done(copy.a, copy.b, known, result);
}

void
qdb_proposal_finished(uint64 id, bool known, QdbResult result)
{
	Proposal   *proposal = find_proposal(id);

	if (proposal == NULL)
		return;
	proposal->finished = true;
	proposal->known = known;
	proposal->result = result;
}

static bool
send_to(uint64 member, const Proposal *proposal)
{
	QdbProposal sent = {.id = proposal->id,.command = proposal->bytes,.length = proposal->length};
	uint8		buf[QDB_COMMAND_MAX_BYTES + 16];
	uint32		length = sizeof(buf);

	return qdb_proposal_encode(&sent, buf, &length) && qdb_mesh_send(member, QDB_FRAME_PROPOSE, buf, length);
}

/* Hands a waiting proposal to whoever can decide on it. */
static void
try_send(Proposal *proposal)
{
	uint64		leader;
	QdbCommand	command;

	proposal->next_send_us = qdb_now_us() + RESEND_US;
	if (qdb_co.raft == NULL)
		return;
	if (qdb_is_raft_leader())
	{
		if (!qdb_command_decode(proposal->bytes, proposal->length, &command))
		{
			finish(proposal, true, QDB_MALFORMED);
			return;
		}
		/* Set before: Raft's answer must find it sent. */
		proposal->sent = true;
		if (!qdb_raft_propose(qdb_co.raft, &command, proposal->id))
			proposal->sent = false;
		return;
	}
	leader = qdb_raft_leader(qdb_co.raft);
	if (proposal->origin == 0 && leader != 0 && leader != qdb_co.self.member)
		proposal->sent = send_to(leader, proposal);
}

bool
qdb_propose(QdbCommand *command, QdbProposalDone done, uint64 a, uint64 b)
{
	Proposal   *proposal = make_proposal(done, a, b);
	size_t		length = QDB_COMMAND_MAX_BYTES;

	if (proposal == NULL)
		return false;
	if (command->time_us == 0)
		command->time_us = qdb_unix_us();
	if (!qdb_command_encode(command, proposal->bytes, &length))
	{
		proposal->id = 0;
		return false;
	}
	proposal->length = (uint32) length;
	try_send(proposal);
	return true;
}

/*
 * Who gets the answer looks at this node's state next, so it comes when that shows
 * what the leader did; a log that does not get there in time holds nobody up.
 */
static bool
is_seen(const Proposal *proposal)
{
	return qdb_co.raft == NULL || qdb_raft_applied_index(qdb_co.raft) >= proposal->seen_at ||
		qdb_co.now_us > proposal->deadline_us;
}

/* Delivers answers, sends what waits, and gives up what nobody answered. */
void
qdb_proposals_turn(void)
{
	for (int i = 0; i < MAX_PROPOSALS; i++)
	{
		Proposal   *proposal = &proposals[i];

		if (proposal->id == 0)
			continue;
		if (proposal->finished && is_seen(proposal))
			finish(proposal, proposal->known, proposal->result);
		else if (!proposal->finished && qdb_co.now_us > proposal->deadline_us)
		{
			/*
			 * Raft may still answer for a command that it holds; the id is
			 * never used again, so that answer is dropped.
			 */
			finish(proposal, false, QDB_OK);
		}
		else if (!proposal->finished && !proposal->sent && qdb_co.now_us >= proposal->next_send_us)
			try_send(proposal);
	}
}

/* A command of another node. */
void
qdb_receive_propose(QdbPeer *peer, const QdbFrame *frame)
{
	QdbProposal received;
	Proposal   *proposal;

	if (!qdb_proposal_decode(frame->payload, frame->length, &received))
		return;
	if (!qdb_is_raft_leader() || (proposal = make_proposal(NULL, 0, 0)) == NULL)
	{
		send_result(peer->member, received.id, RESULT_NOT_LEADER, QDB_OK);
		return;
	}
	proposal->origin = peer->member;
	proposal->origin_id = received.id;
	proposal->length = received.length;
	memcpy(proposal->bytes, received.command, received.length);
	try_send(proposal);
}

void
qdb_receive_propose_result(QdbPeer *peer, const QdbFrame *frame)
{
	QdbProposalResult answer;
	Proposal   *proposal;

	if (!qdb_proposal_result_decode(frame->payload, frame->length, &answer))
		return;
	proposal = find_proposal(answer.id);
	if (proposal == NULL || proposal->origin != 0)
		return;
	if (answer.status == RESULT_NOT_LEADER)
	{
		proposal->sent = false;
		proposal->next_send_us = qdb_co.now_us + RESEND_US;
	}
	else if (answer.status == RESULT_KNOWN)
	{
		proposal->seen_at = answer.applied;
		qdb_proposal_finished(proposal->id, true, (QdbResult) answer.result);
	}
	else
		finish(proposal, false, (QdbResult) answer.result);
}
