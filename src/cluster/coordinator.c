/*-------------------------------------------------------------------------
 *
 * coordinator.c
 *		The coordinator's main loop.
 *
 * One thread around a WaitEventSet.  The sockets in it only wake the loop; each
 * turn drives every channel, because a turn comes every 10 ms anyway and a
 * missed event then costs no more than that.  Raft's callbacks run inside
 * qdb_raft_turn and qdb_raft_receive: they note and queue, and raise no errors.
 *
 * An inert node sleeps on its latch and handles init and join only.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "postmaster/postmaster.h"
#include "postmaster/postmaster.h"
#include "storage/ipc.h"
#include "storage/pmsignal.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/wait_event.h"

#include "cluster/internal.h"

#define TURN_MS				10
#define HURRY_MS			1	/* while the seat changes */
#define HURRY_US			(3 * 1000 * 1000)
#define INERT_MS			10000
#define PUBLISH_US			(100 * 1000)
#define UPDATE_US			(1000 * 1000)
#define MAX_EVENTS			(2 + QDB_MESH_MAX_LISTEN + QDB_MESH_MAX_CHANNELS + 1)

QdbCoordinator qdb_co;

/* What is waited for; compared to tell when the set must be built anew. */
typedef struct WaitedSocket
{
	int			fd;
	uint32		events;
	int64_t		created_us;		/* tells channels with equal fds apart */
} WaitedSocket;

static WaitEventSet *wait_set = NULL;
static WaitedSocket waited[MAX_EVENTS];
static int	nwaited = 0;
static bool postmaster_died = false;

const QdbMember *
qdb_self_member(void)
{
	return qdb_member_by_id(qdb_co.state, qdb_co.self.member);
}

bool
qdb_is_raft_leader(void)
{
	return qdb_co.raft != NULL && qdb_raft_leader(qdb_co.raft) == qdb_co.self.member;
}

QdbBoot
qdb_self_boot(void)
{
	QdbBoot		boot = {qdb_co.self.member, qdb_co.self.incarnation, qdb_co.self.boot};

	return boot;
}

bool
qdb_grant_is_ours(const QdbGrant *grant)
{
	QdbBoot		self = qdb_self_boot();

	return qdb_grant_is_of(grant, &self);
}

static void
send_raft(void *arg, uint64_t member, const uint8_t *data, uint32_t len)
{
	(void) qdb_mesh_send(member, QDB_FRAME_RAFT, data, len);
}

static void
raft_applied(void *arg, uint64_t index, const QdbCommand *command, QdbResult result)
{
	qdb_co.state_changed = true;
	if (command == NULL)
		qdb_co.epoch_seen_us = qdb_co.move_seen_us = qdb_now_us();
	if (command == NULL || result != QDB_OK)
		return;
	switch (command->type)
	{
		case QDB_CMD_SEAT:
			qdb_co.epoch_seen_us = qdb_now_us();
			break;
		case QDB_CMD_INIT:
		case QDB_CMD_OPEN_EPOCH:
			qdb_co.epoch_seen_us = qdb_now_us();
			break;
		case QDB_CMD_RELEASE:
			qdb_co.released_epoch = command->grant.epoch;
			break;
		case QDB_CMD_MOVE:
			qdb_co.move_seen_us = qdb_now_us();
			if (command->member.id == 0)
				qdb_promotion_given_up(command->text);
			break;
		default:
			break;
	}
}

static void
raft_named(void *arg, const QdbMember *member)
{
	qdb_mesh_expect(member);
}

static void
raft_proposed(void *arg, uint64_t request, bool known, QdbResult result)
{
	qdb_proposal_finished(request, known, result);
}

static void
raft_log(void *arg, int level, const char *message)
{
	ereport(level < ERROR ? level : LOG,
			(errmsg_internal("%s%s", strncmp(message, "[raft]", 6) == 0 ? "" : "[raft] ", message)));
}

bool
qdb_open_raft(char *why, size_t why_size)
{
	static const QdbRaftCallbacks callbacks = {
		.send = send_raft,
		.applied = raft_applied,
		.named = raft_named,
		.proposed = raft_proposed,
		.log = raft_log
	};

	qdb_co.raft = qdb_raft_open(QDB_RAFT_DIR, qdb_co.self.member, qdb_co.state, &callbacks,
								10 * qdb_heartbeat_ms, qdb_heartbeat_ms, why, why_size);
	return qdb_co.raft != NULL;
}

void
qdb_close_raft(void)
{
	if (qdb_co.raft != NULL)
		qdb_raft_close(qdb_co.raft);
	qdb_co.raft = NULL;
}

/*
 * After a restart of this worker Raft applies its log again from a snapshot;
 * until it has come to where it was, the older state must not be shown.
 */
void
qdb_publish_state(void)
{
	const QdbState *shown = &qdb_shared->state;

	if (!qdb_co.state_changed)
		return;
	if (qdb_co.state->epoch < shown->epoch || qdb_co.state->membership < shown->membership ||
		qdb_co.state->journal_next < shown->journal_next)
		return;
	LWLockAcquire(qdb_shared->state_lock, LW_EXCLUSIVE);
	memcpy(&qdb_shared->state, qdb_co.state, sizeof(QdbState));
	LWLockRelease(qdb_shared->state_lock);
	qdb_co.state_changed = false;
	qdb_wake_streamer();
}

static void
publish_raft(void)
{
	static int64 next_us = 0;
	int			raft_state = qdb_raft_state(qdb_co.raft);
	uint64		term = qdb_raft_term(qdb_co.raft);
	uint64		leader = qdb_raft_leader(qdb_co.raft);
	uint64		last = qdb_raft_last_index(qdb_co.raft);

	SpinLockAcquire(&qdb_shared->mutex);
	qdb_shared->raft_state = raft_state;
	qdb_shared->raft_term = term;
	qdb_shared->raft_leader = leader;
	qdb_shared->raft_last_index = last;
	SpinLockRelease(&qdb_shared->mutex);
	if (qdb_co.now_us >= next_us)
	{
		next_us = qdb_co.now_us + PUBLISH_US;
		qdb_publish_peers();
	}
}

/* The others learn where this node is when its settings have changed. */
static void
update_address(void)
{
	static int64 next_us = 0;
	const QdbMember *member = qdb_self_member();
	QdbCommand	command;

	if (member == NULL || qdb_co.now_us < next_us || qdb_raft_leader(qdb_co.raft) == 0)
		return;
	if (strcmp(member->host, qdb_advertise_host) == 0 && member->sql_port == PostPortNumber &&
		member->raft_port == qdb_raft_port && member->http_port == qdb_http_port &&
		member->replication_port == qdb_replication_port && member->priority == qdb_priority)
		return;
	next_us = qdb_co.now_us + UPDATE_US;
	memset(&command, 0, sizeof(command));
	command.type = QDB_CMD_MEMBER_UPDATE;
	command.member = *member;
	strlcpy(command.member.host, qdb_advertise_host, sizeof(command.member.host));
	command.member.sql_port = (uint16) PostPortNumber;
	command.member.raft_port = (uint16) qdb_raft_port;
	command.member.replication_port = (uint16) qdb_replication_port;
	command.member.http_port = (uint16) qdb_http_port;
	command.member.priority = qdb_priority;
	strlcpy(command.node, member->name, sizeof(command.node));
	(void) qdb_propose(&command, NULL, 0, 0);
}

/* The sockets of this turn, in a fixed order. */
static int
collect_sockets(WaitedSocket *sockets)
{
	static QdbChannel *channels[QDB_MESH_MAX_CHANNELS + 1];
	int			fds[QDB_MESH_MAX_LISTEN];
	int			n = 0;
	int			nlisten = qdb_mesh_listeners(fds);
	int			nchannels = qdb_mesh_channels(channels);

	if (qdb_join_channel() != NULL)
		channels[nchannels++] = qdb_join_channel();
	for (int i = 0; i < nlisten; i++)
		sockets[n++] = (WaitedSocket)
	{
		fds[i], WL_SOCKET_READABLE, 0
	};
	for (int i = 0; i < nchannels; i++)
	{
		uint32		events = WL_SOCKET_READABLE;

		if (qdb_channel_fd(channels[i]) < 0 ||
			qdb_channel_state(channels[i]) == QDB_CHANNEL_FAILED)
			continue;
		if (qdb_channel_wants_write(channels[i]))
			events |= WL_SOCKET_WRITEABLE;
		sockets[n++] = (WaitedSocket)
		{
			qdb_channel_fd(channels[i]), events,
				qdb_channel_created_us(channels[i])
		};
	}
	return n;
}

static void
prepare_wait_set(void)
{
	static WaitedSocket sockets[MAX_EVENTS];
	int			n = collect_sockets(sockets);

	if (wait_set != NULL && n == nwaited && memcmp(sockets, waited, sizeof(WaitedSocket) * n) == 0)
		return;
	if (wait_set != NULL)
		FreeWaitEventSet(wait_set);
	wait_set = CreateWaitEventSet(TopMemoryContext, n + 2);
	AddWaitEventToSet(wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(wait_set, WL_POSTMASTER_DEATH, PGINVALID_SOCKET, NULL, NULL);
	for (int i = 0; i < n; i++)
		AddWaitEventToSet(wait_set, sockets[i].events, sockets[i].fd, NULL, NULL);
	memcpy(waited, sockets, sizeof(WaitedSocket) * n);
	nwaited = n;
}

static void
wait_for_work(int timeout_ms)
{
	WaitEvent	events[16];
	int			n;

	prepare_wait_set();
	n = WaitEventSetWait(wait_set, timeout_ms, events, lengthof(events), PG_WAIT_EXTENSION);
	for (int i = 0; i < n; i++)
	{
		if ((events[i].events & WL_LATCH_SET) != 0)
			ResetLatch(MyLatch);
		if ((events[i].events & WL_POSTMASTER_DEATH) != 0)
			postmaster_died = true;
	}
}

/* Orphaned backends answer nothing (hazards 2), so the others need not wait. */
static void
leave_dead_postmaster(void)
{
	pg_atomic_write_u64(&qdb_shared->lease_until, 0);
	if (qdb_co.raft != NULL)
		qdb_mesh_goodbye(QDB_GOODBYE_DEAD);
	proc_exit(1);
}

/*
 * While nobody can write, what is polled for (a promotion that ends, a lease that runs
 * out) is looked at more often; not for ever, since a cluster may stay without a majority.
 */
static bool
is_in_hurry(void)
{
	const QdbGrant *grant = qdb_current_grant(qdb_co.state);

	return qdb_co.handing_over ||
		((grant == NULL || !grant->opened) && qdb_co.now_us - qdb_co.epoch_seen_us < HURRY_US);
}

/* A turn as a member, or while becoming one.  Returns ms to wait at most. */
static int
take_turn(void)
{
	int			wait_ms;

	(void) qdb_mesh_start();
	qdb_mesh_turn();
	wait_ms = qdb_raft_turn(qdb_co.raft);
	if (qdb_raft_failed(qdb_co.raft))
	{
		ereport(LOG, (errmsg("[raft] the Raft log cannot be written: the coordinator starts again")));
		proc_exit(1);
	}
	if (qdb_removal_turn())
		return TURN_MS;
	qdb_proposals_turn();
	qdb_requests_turn();
	if (qdb_shared->joining)
	{
		qdb_joining_turn();
		if (qdb_co.raft != NULL)
			publish_raft();
		return TURN_MS;
	}
	/* A failed init has closed it. */
	if (qdb_co.raft == NULL || !qdb_shared->member)
		return Min(wait_ms, TURN_MS);
	qdb_publish_state();
	qdb_health_turn();
	qdb_role_turn();
	qdb_lease_turn();
	qdb_reads_turn();
	qdb_heartbeat_turn();
	qdb_handover_turn();
	qdb_promotion_turn();
	qdb_wishes_turn();
	qdb_leader_turn();
	qdb_certificates_turn();
	qdb_watch_turn();
	qdb_retention_turn();
	qdb_ladder_turn();
	qdb_clone_turn();
	update_address();
	qdb_publish_state();
	publish_raft();
	if (qdb_raft_has_work(qdb_co.raft))
		return 0;
	return Max(Min(wait_ms, is_in_hurry() ? HURRY_MS : TURN_MS), 0);
}

static int
take_inert_turn(void)
{
	if (qdb_recover_turn())
		return TURN_MS;
	qdb_requests_turn();
	qdb_join_turn();
	if (qdb_shared->removed)
	{
		qdb_removed_turn();
		return TURN_MS;
	}
	return qdb_join_pending() || qdb_co.raft != NULL ? TURN_MS : INERT_MS;
}

static void
begin(void)
{
	char		why[QDB_REASON_SIZE] = "";

	memset(&qdb_co, 0, sizeof(qdb_co));
	qdb_co.started_us = qdb_co.now_us = qdb_now_us();
	qdb_co.epoch_seen_us = qdb_co.started_us;
	qdb_co.state = malloc(sizeof(QdbState));
	if (qdb_co.state == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	qdb_state_init(qdb_co.state);
	qdb_requests_begin();
	if (!qdb_shared->member)
	{
		qdb_resume_joining();
		return;
	}
	qdb_co.self = qdb_shared->identity;
	if (qdb_shared->removed)
		return;
	qdb_certificates_begin();
	qdb_finish_exchange();
	if (!qdb_open_raft(why, sizeof(why)))
		ereport(ERROR, (errmsg("[raft] could not open the Raft log: %s", why),
						errhint("Remove this member from the cluster and join it anew.")));
	qdb_finish_recovery();
	ereport(LOG, (errmsg("[cluster] node \"%s\" is member %llu, boot %llu", qdb_co.self.name,
						 (unsigned long long) qdb_co.self.member,
						 (unsigned long long) qdb_co.self.boot)));
}

void
qdb_coordinator_main(Datum arg)
{
	MemoryContext turn_context;

	qdb_worker_begin(&qdb_shared->coordinator_latch, &qdb_shared->coordinator_pid);

	/*
	 * Facilities of the server, hashing for one, keep their resources by
	 * owner.
	 */
	CreateAuxProcessResourceOwner();
	turn_context = AllocSetContextCreate(TopMemoryContext, "quantadb coordinator turn",
										 ALLOCSET_DEFAULT_SIZES);
	begin();
	for (;;)
	{
		int			wait_ms;

		MemoryContextReset(turn_context);
		MemoryContextSwitchTo(turn_context);
		qdb_co.now_us = qdb_now_us();
		SpinLockAcquire(&qdb_shared->mutex);
		qdb_shared->coordinator_beat_us = qdb_co.now_us;
		SpinLockRelease(&qdb_shared->mutex);
		if (postmaster_died)
			leave_dead_postmaster();
		if (qdb_worker_shutdown_requested())
			qdb_shut_down();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
			qdb_certificates_reload();
		}
		/* A barrier (DROP DATABASE and the like) waits for every process. */
		CHECK_FOR_INTERRUPTS();
		wait_ms = qdb_co.raft != NULL ? take_turn() : take_inert_turn();
		wait_for_work(wait_ms);
	}
}
