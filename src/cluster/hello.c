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
	uint8		buf[512];
	QdbWriter	w = {.buf = buf,.size = sizeof(buf)};

	qdb_put_string(&w, qdb_co.self.cluster_id);
	qdb_put_u64(&w, qdb_co.self.member);
	qdb_put_string(&w, qdb_co.self.name);
	qdb_put_u64(&w, qdb_co.self.incarnation);
	qdb_put_u64(&w, qdb_co.self.boot);
	qdb_put_u64(&w, qdb_co.self.system_identifier);
	qdb_put_string(&w, qdb_advertise_host);
	qdb_put_u16(&w, (uint16) qdb_raft_port);
	return !w.failed && qdb_channel_send(channel, QDB_FRAME_HELLO, buf, (uint32) w.used);
}

bool
qdb_read_hello(const QdbFrame *frame, QdbHello *hello)
{
	QdbReader	r = {.buf = frame->payload,.size = frame->length};

	memset(hello, 0, sizeof(*hello));
	qdb_get_string(&r, hello->cluster_id, sizeof(hello->cluster_id));
	hello->member = qdb_get_u64(&r);
	qdb_get_string(&r, hello->name, sizeof(hello->name));
	hello->incarnation = qdb_get_u64(&r);
	hello->boot = qdb_get_u64(&r);
	hello->system_identifier = qdb_get_u64(&r);
	qdb_get_string(&r, hello->host, sizeof(hello->host));
	hello->raft_port = qdb_get_u16(&r);
	return qdb_reader_done(&r);
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
	uint8		buf[16];
	QdbWriter	w = {.buf = buf,.size = sizeof(buf)};

	qdb_put_u64(&w, hello->member);
	qdb_put_u64(&w, hello->incarnation);
	return qdb_channel_send(channel, QDB_FRAME_REMOVED, buf, (uint32) w.used);
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
	QdbReader	r = {.buf = frame->payload,.size = frame->length};
	const QdbMember *member = qdb_member_by_id(qdb_co.state, peer->member);
	uint64		id = qdb_get_u64(&r);
	uint64		incarnation = qdb_get_u64(&r);

	return qdb_reader_done(&r) && id == qdb_co.self.member && incarnation == qdb_co.self.incarnation &&
		qdb_judge_certificate(qdb_co.state, qdb_channel_peer(peer->out), qdb_co.self.cluster_id,
							  peer->member, member != NULL ? member->incarnation : peer->incarnation,
							  member != NULL ? member->name : "") == NULL;
}
