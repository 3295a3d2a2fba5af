/*-------------------------------------------------------------------------
 *
 * init.c
 *		quantadb_init(): the running server becomes a cluster's first member.
 *
 * Order: promise, keys, Raft folder, epoch record, INIT committed, identity.  A server
 * that dies in between is no member, and what is left in the folder is removed
 * by the next attempt; from the identity on it boots as a standby (I15).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "common/file_perm.h"
#include "miscadmin.h"
#include "port.h"
#include "postmaster/postmaster.h"
#include "utils/uuid.h"

#include "cluster/internal.h"

static XLogRecPtr record_end;
static TimeLineID record_timeline;
static uint8 key_hash[QDB_KEY_HASH_SIZE];

/* A folder that is not there would be a warning in the log. */
void
qdb_drop_folder(const char *path)
{
	struct stat st;

	if (stat(path, &st) == 0)
		(void) rmtree(path, true);
}

bool
qdb_make_folder(char *why, size_t why_size)
{
	struct stat st;

	if (mkdir(QDB_DIR, pg_dir_create_mode) != 0 && errno != EEXIST)
	{
		snprintf(why, why_size, "could not create directory \"%s\": %m", QDB_DIR);
		return false;
	}
	if (stat(QDB_DIR "/identity", &st) == 0 && !qdb_shared->removed)
	{
		snprintf(why, why_size, "this server was made a member already: restart it");
		return false;
	}

	/*
	 * Without an identity, what is there belongs to an attempt that failed;
	 * and what a removed member promised binds nobody.
	 */
	qdb_drop_folder(QDB_RAFT_DIR);
	if (qdb_shared->removed)
		(void) unlink(QDB_DIR "/promise");
	if (mkdir(QDB_RAFT_DIR, pg_dir_create_mode) != 0 && errno != EEXIST)
	{
		snprintf(why, why_size, "could not create directory \"%s\": %m", QDB_RAFT_DIR);
		return false;
	}
	return true;
}

bool
qdb_make_cluster_id(char *cluster_id)
{
	uint8		u[UUID_LEN];

	if (!pg_strong_random(u, sizeof(u)))
		return false;
	u[6] = (u[6] & 0x0f) | 0x40;
	u[8] = (u[8] & 0x3f) | 0x80;
	snprintf(cluster_id, QDB_CLUSTER_ID_SIZE,
			 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
			 u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7],
			 u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
	return true;
}

static bool
make_identity(QdbIdentity *identity)
{
	struct stat st;

	memset(identity, 0, sizeof(*identity));
	if (!qdb_make_cluster_id(identity->cluster_id) || stat(DataDir, &st) != 0 ||
		!pg_strong_random(&identity->incarnation, sizeof(identity->incarnation)))
		return false;
	identity->incarnation &= PG_INT64_MAX;
	identity->incarnation |= 1;
	identity->member = 1;
	identity->boot = 1;
	identity->system_identifier = GetSystemIdentifier();
	identity->inode = st.st_ino;
	strlcpy(identity->name, qdb_node_name, sizeof(identity->name));
	return true;
}

void
qdb_become_member(void)
{
	qdb_shared->identity = qdb_co.self;
	qdb_shared->removed = false;
	pg_write_barrier();
	qdb_shared->member = true;
}

static void
give_up(int slot, const char *why)
{
	qdb_close_raft();
	qdb_mesh_stop();
	qdb_state_init(qdb_co.state);
	(void) unlink(QDB_DIR "/promise");
	qdb_refuse_request(slot, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, why, NULL);
}

/* INIT is committed: this boot holds the seat of epoch 1, its gate open. */
static void
init_done(uint64 slot, uint64 unused, bool known, QdbResult result)
{
	if (!known || (result != QDB_OK && result != QDB_UNCHANGED))
	{
		give_up((int) slot, known ? qdb_result_text(result) : "Raft did not answer in time");
		return;
	}
	qdb_identity_store(&qdb_co.self);
	if (!qdb_effects.secure_boot())
	{
		(void) unlink(QDB_DIR "/identity");
		give_up((int) slot, "cannot make sure that this server boots as a standby");
		return;
	}
	pg_atomic_write_u64(&qdb_shared->quorum_lsn, 0);
	pg_atomic_write_u64(&qdb_shared->quorum_epoch, 1);
	qdb_publish_state();
	SpinLockAcquire(&qdb_shared->mutex);
	qdb_shared->promised = 1;
	qdb_shared->promising = 1;
	qdb_shared->epoch_record_end = record_end;
	qdb_shared->seat_timeline = record_timeline;
	qdb_shared->seat_epoch = 1;
	qdb_shared->open_epoch = 1;
	SpinLockRelease(&qdb_shared->mutex);
	/* A single voter is its own majority: the lease is alive from the start. */
	qdb_lease_turn();
	qdb_become_member();
	qdb_wake_streamer();
	ereport(LOG, (errmsg("[cluster] node \"%s\" is the first member of cluster %s",
						 qdb_co.self.name, qdb_co.self.cluster_id)));
	qdb_answer_request((int) slot, 1, qdb_co.self.cluster_id);
}

static void
fill_init(QdbCommand *command, XLogRecPtr record, const char *cluster_name)
{
	memset(command, 0, sizeof(*command));
	command->type = QDB_CMD_INIT;
	command->epoch = 1;
	strlcpy(command->value, qdb_co.self.cluster_id, sizeof(command->value));
	strlcpy(command->text, cluster_name, sizeof(command->text));
	command->member.id = 1;
	command->member.incarnation = qdb_co.self.incarnation;
	strlcpy(command->member.name, qdb_co.self.name, sizeof(command->member.name));
	strlcpy(command->member.host, qdb_advertise_host, sizeof(command->member.host));
	command->member.sql_port = (uint16) PostPortNumber;
	command->member.raft_port = (uint16) qdb_raft_port;
	command->member.replication_port = (uint16) qdb_replication_port;
	command->member.http_port = (uint16) qdb_http_port;
	command->member.role = QDB_ROLE_VOTER;
	command->member.priority = qdb_priority;
	memcpy(command->member.key_hash, key_hash, sizeof(key_hash));
	command->grant.epoch = 1;
	command->grant.timeline = record_timeline;
	command->grant.fork = record;
	command->grant.holder = 1;
	command->grant.incarnation = qdb_co.self.incarnation;
	command->grant.boot = 1;
	command->grant.opened = true;
	command->grant.lease_ms = qdb_co.state->settings.lease_ms;
	command->system_identifier = qdb_co.self.system_identifier;
	strlcpy(command->node, qdb_co.self.name, sizeof(command->node));
}

static bool
begin_raft(char *why, size_t why_size)
{
	if (!qdb_make_folder(why, why_size))
		return false;
	if (!qdb_promise_store(1))
	{
		snprintf(why, why_size, "could not store the promise of epoch 1");
		return false;
	}
	if (!qdb_make_certificates(key_hash, why, why_size))
		return false;
	return qdb_raft_bootstrap(QDB_RAFT_DIR, 1, why, why_size) && qdb_open_raft(why, why_size);
}

void
qdb_start_init(int slot, const QdbRequest *request)
{
	char		why[QDB_REASON_SIZE] = "";
	QdbCommand	command;
	xl_qdb_epoch record = {0};
	XLogRecPtr	start;

	if (qdb_co.raft != NULL || qdb_join_channel() != NULL)
	{
		qdb_refuse_request(slot, ERRCODE_OBJECT_IN_USE, "an init or a join is under way", NULL);
		return;
	}
	if (RecoveryInProgress())
	{
		qdb_refuse_request(slot, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
						   "a server in recovery cannot become the first member",
						   "Run quantadb_init() on the primary, and quantadb_join() on its copies.");
		return;
	}
	if (strlen(request->text) >= QDB_NAME_SIZE || !make_identity(&qdb_co.self))
	{
		qdb_refuse_request(slot, ERRCODE_INVALID_PARAMETER_VALUE,
						   "the cluster name is too long, or there are no random numbers", NULL);
		return;
	}
	if (!begin_raft(why, sizeof(why)))
	{
		give_up(slot, why);
		return;
	}
	record_timeline = GetWALInsertionTimeLine();
	record.format = QDB_EPOCH_FORMAT;
	record.timeline = record_timeline;
	record.epoch = 1;
	record.incarnation = qdb_co.self.incarnation;
	record.boot = qdb_co.self.boot;
	record.cluster_hash = qdb_cluster_hash(qdb_co.self.cluster_id);
	start = qdb_write_epoch_record(&record, &record_end);
	fill_init(&command, start, request->text);
	if (!qdb_propose(&command, init_done, slot, 0))
		give_up(slot, "too many commands are under way");
}
