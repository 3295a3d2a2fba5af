/*-------------------------------------------------------------------------
 *
 * hello.c
 *		The first frame on a connection between members.
 *
 * Either side says who it is, by id, incarnation and boot, and is compared with its
 * certificate, the replicated state, and what was seen of it before (I16).  Who was removed is told
 * so in place of the answer.
 *
 * Process: coordinator.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "cluster/hello.h"
#include "cluster/internal.h"

bool
qdb_send_hello(QdbChannel *channel)
{
	QdbHello	hello = {.member = qdb_co.self.member,.incarnation = qdb_co.self.incarnation,
		.boot = qdb_co.self.boot,.system_identifier = qdb_co.self.system_identifier,
	.raft_port = (uint16) qdb_raft_port};
	uint8		buf[QDB_PEER_MAX_BYTES];
	uint32		length = sizeof(buf);

	strlcpy(hello.cluster_id, qdb_co.self.cluster_id, sizeof(hello.cluster_id));
	strlcpy(hello.name, qdb_co.self.name, sizeof(hello.name));
	strlcpy(hello.host, qdb_advertise_host, sizeof(hello.host));
	return qdb_peer_hello_encode(&hello, buf, &length) && qdb_channel_send(channel, QDB_FRAME_HELLO, buf, length);
}

bool
qdb_read_hello(const QdbFrame *frame, QdbHello *hello)
{
	return qdb_peer_hello_decode(frame->payload, frame->length, hello);
}

/*
 * Is this the member it says it is?  NULL: yes.  A restored or copied directory has
 * another incarnation; a boot below one already seen is a leftover (I16).
 */
const char *
qdb_judge_hello(const QdbHello *hello, const QdbChannel *channel)
{
	const QdbMember *member = qdb_member_by_id(qdb_co.state, hello->member);
	const QdbPeer *peer = qdb_mesh_peer(hello->member);
	const char *why;

	if (strcmp(hello->cluster_id, qdb_co.self.cluster_id) != 0)
		return "it belongs to another cluster";
	why = qdb_judge_certificate(qdb_co.state, qdb_channel_peer(channel), qdb_co.self.cluster_id,
								hello->member, hello->incarnation, hello->name);
	if (why != NULL)
		return why;
	if (hello->system_identifier != qdb_co.self.system_identifier)
		return "it has another system identifier";
	if (hello->member == 0 || hello->member == qdb_co.self.member)
		return "it has a wrong member id";
	if (member == NULL && hello->member < qdb_co.state->next_member_id)
		return "it was removed from the cluster";
	if (member != NULL && member->incarnation != hello->incarnation)
		return "it has another incarnation than the member it names";
	if (peer != NULL && peer->boot != 0 &&
		(peer->incarnation != hello->incarnation ? member == NULL : hello->boot < peer->boot))
		return "a later boot of it has been seen";
	return NULL;
}

bool
qdb_send_removed(QdbChannel *channel, const QdbHello *hello)
{
	QdbRemoved	removed = {.member = hello->member,.incarnation = hello->incarnation};
	uint8		buf[QDB_PEER_MAX_BYTES];
	uint32		length = sizeof(buf);

	return qdb_removed_encode(&removed, buf, &length) && qdb_channel_send(channel, QDB_FRAME_REMOVED, buf, length);
}

/*
 * An id is never used twice, so one that was given out and is not in the state was removed:
 * true however old the state is.  Nobody else tells the member (raft.md).
 */
bool
qdb_was_removed(const QdbHello *hello)
{
	return strcmp(hello->cluster_id, qdb_co.self.cluster_id) == 0 && hello->member != 0 &&
		hello->member < qdb_co.state->next_member_id &&
		qdb_member_by_id(qdb_co.state, hello->member) == NULL;
}

/*
 * Does a member say that this one was removed?  Its certificate has to be good for what
 * our own state, which may be behind, knows of it.
 */
bool
qdb_says_removed(const QdbPeer *peer, const QdbFrame *frame)
{
	const QdbMember *member = qdb_member_by_id(qdb_co.state, peer->member);
	QdbRemoved	removed;

	return qdb_removed_decode(frame->payload, frame->length, &removed) &&
		removed.member == qdb_co.self.member && removed.incarnation == qdb_co.self.incarnation &&
		qdb_judge_certificate(qdb_co.state, qdb_channel_peer(peer->out), qdb_co.self.cluster_id,
							  peer->member, member != NULL ? member->incarnation : peer->incarnation,
							  member != NULL ? member->name : "") == NULL;
}

/*
 * Who knows the cluster and is refused should be seen, but not at each attempt:
 * once a minute, or when the reason is another one.  Anybody else is noise.
 */
void
qdb_log_refusal(const QdbHello *hello, const QdbChannel *channel, const char *why, bool quietly)
{
	static struct
	{
		uint64		member;
		const char *why;
		int64		at_us;
	}			last[16];
	int			i = hello->member % lengthof(last);
	bool		known = hello->member != 0 && (qdb_plaintext() || qdb_channel_peer(channel) != NULL);

	if (!known || quietly || (last[i].member == hello->member && last[i].why == why && qdb_co.now_us - last[i].at_us < 60000000))
	{
		ereport(DEBUG1, (errmsg_internal("[raft] refused a connection: %s", why)));
		return;
	}
	last[i].member = hello->member;
	last[i].why = why;
	last[i].at_us = qdb_co.now_us;
	ereport(LOG, (errmsg("[cluster] Refused node %s: %s", hello->name, why)));
}
