/*-------------------------------------------------------------------------
 *
 * pg.c
 *		What the images find in place of PostgreSQL: its functions, as far as
 *		the coordinator calls them, over the simulated node whose process runs.
 *
 *-------------------------------------------------------------------------
 */
#include "sim.h"

#include <time.h>

#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "postmaster/pgarch.h"
#include "replication/walreceiver.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/wait_event.h"

#undef printf
#undef fprintf
#undef vprintf
#undef vfprintf
#undef snprintf
#undef vsnprintf

/* ---- settings and variables ---- */

char	   *qdb_advertise_host;
char	   *qdb_listen_addresses;
int			qdb_raft_port;
int			qdb_replication_port;
int			qdb_http_port;
int			qdb_heartbeat_ms;
int			qdb_priority;
char	   *qdb_upstream;
int64		qdb_max_lag_bytes = -1;
int64		qdb_max_lag_us = -1;
int			PostPortNumber;
int			MyProcPid = 1;
pid_t		PostmasterPid = 1;
struct Latch *MyLatch;
MemoryContext CurrentMemoryContext;
MemoryContext TopMemoryContext;
volatile sig_atomic_t ConfigReloadPending = false;
volatile sig_atomic_t InterruptPending = false;
LWLockPadded *MainLWLockArray;
int			XLogArchiveMode = ARCHIVE_MODE_OFF;

static struct Latch latch;
struct Latch sim_streamer_latch;
static LWLockPadded locks[NUM_INDIVIDUAL_LWLOCKS + 1];
static bool error_raised;
static char error_text[512];

/* ---- text ---- */

int
pg_snprintf(char *str, size_t count, const char *fmt,...)
{
	va_list		args;
	int			n;

	va_start(args, fmt);
	n = vsnprintf(str, count, fmt, args);
	va_end(args);
	return n;
}

int
pg_vsnprintf(char *str, size_t count, const char *fmt, va_list args)
{
	return vsnprintf(str, count, fmt, args);
}

int
pg_printf(const char *fmt,...)
{
	va_list		args;
	int			n;

	va_start(args, fmt);
	n = vprintf(fmt, args);
	va_end(args);
	return n;
}

int
pg_fprintf(FILE *stream, const char *fmt,...)
{
	va_list		args;
	int			n;

	va_start(args, fmt);
	n = vfprintf(stream, fmt, args);
	va_end(args);
	return n;
}

size_t
strlcpy(char *dst, const char *src, size_t size)
{
	size_t		n = strlen(src);

	if (size > 0)
	{
		size_t		copy = n < size ? n : size - 1;

		memcpy(dst, src, copy);
		dst[copy] = '\0';
	}
	return n;
}

/* ---- errors and the log ---- */

bool
errstart(int elevel, const char *domain)
{
	error_raised = elevel >= ERROR;
	error_text[0] = '\0';
	return error_raised || (sim.trace && elevel >= DEBUG1);
}

bool
errstart_cold(int elevel, const char *domain)
{
	return errstart(elevel, domain);
}

static void
add_text(const char *fmt, va_list args)
{
	size_t		used = strlen(error_text);

	vsnprintf(error_text + used, sizeof(error_text) - used, fmt, args);
}

int
errmsg(const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	add_text(fmt, args);
	va_end(args);
	return 0;
}

int
errmsg_internal(const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	add_text(fmt, args);
	va_end(args);
	return 0;
}

int
errdetail(const char *fmt,...)
{
	va_list		args;

	va_start(args, fmt);
	strlcpy(error_text + strlen(error_text), " / ", 4);
	add_text(fmt, args);
	va_end(args);
	return 0;
}

int
errhint(const char *fmt,...)
{
	return 0;
}

int
errcode(int code)
{
	return 0;
}

void
errfinish(const char *filename, int lineno, const char *funcname)
{
	sim_trace(sim.current, "%s", error_text);
	if (error_raised)
		sim_process_exit(false);
}

/* ---- memory, locks, latches ---- */

extern void *sim_malloc(size_t size);
extern void sim_free(void *p);

void *
palloc(Size size)
{
	return sim_malloc(size);
}

void
pfree(void *p)
{
	sim_free(p);
}

void
MemoryContextReset(MemoryContext context)
{
}

MemoryContext
AllocSetContextCreateInternal(MemoryContext parent, const char *name, Size min, Size init, Size max)
{
	return NULL;
}

void
CreateAuxProcessResourceOwner(void)
{
}

bool
LWLockAcquire(LWLock *lock, LWLockMode mode)
{
	return true;
}

void
LWLockRelease(LWLock *lock)
{
}

int
s_lock(volatile slock_t *lock, const char *file, int line, const char *func)
{
	abort();					/* one thread: somebody has not let go */
}

void
ConditionVariableInit(ConditionVariable *cv)
{
}

void
ConditionVariableBroadcast(ConditionVariable *cv)
{
}

void
RequestAddinShmemSpace(Size size)
{
}

void
RequestNamedLWLockTranche(const char *name, int n)
{
}

LWLockPadded *
GetNamedLWLockTranche(const char *name)
{
	return &locks[NUM_INDIVIDUAL_LWLOCKS];
}

void *
ShmemInitStruct(const char *name, Size size, bool *found)
{
	MainLWLockArray = locks;
	*found = false;
	return sim.current->shared;
}

void
SetLatch(Latch *l)
{
	/* The streamer is a process: it may be there before the coordinator goes on. */
	if (l == &sim_streamer_latch && sim.current != NULL && sim.current->server_up && sim_chance(50))
		sim_streamer_turn(sim.current);
	else if (sim.current != NULL)
		sim_process_wake(sim.current, 0);
}

void
ResetLatch(Latch *l)
{
}

/* The sockets are the simulator's: what arrives wakes the process. */
struct WaitEventSet
{
	int			unused;
};

static WaitEventSet wait_event_set;

WaitEventSet *
CreateWaitEventSet(MemoryContext context, int n)
{
	return &wait_event_set;
}

void
FreeWaitEventSet(WaitEventSet *set)
{
}

int
AddWaitEventToSet(WaitEventSet *set, uint32 events, pgsocket fd, Latch *l, void *data)
{
	return 0;
}

int
WaitEventSetWait(WaitEventSet *set, long timeout, WaitEvent *events, int nevents, uint32 info)
{
	/* A busy machine runs it a little late. */
	sim_process_wait(timeout * SIM_MS + (timeout > 0 ? sim_below(25 * SIM_MS) : 0));
	return 0;
}

void
pg_usleep(long us)
{
	sim_process_wait(us);
}

/* ---- the process ---- */

void
proc_exit(int code)
{
	sim_process_exit(false);
}

void
ProcessInterrupts(void)
{
}

void
ProcessConfigFile(GucContext context)
{
}

bool
PostmasterIsAliveInternal(void)
{
	return sim.current->server_up;
}

void
qdb_worker_begin(Latch **latch_slot, pid_t *pid_slot)
{
	*latch_slot = &latch;
	*pid_slot = MyProcPid;
}

bool
qdb_worker_shutdown_requested(void)
{
	return sim.current->shutdown;
}

struct BackgroundWorkerHandle
{
	int			unused;
};

bool
RegisterDynamicBackgroundWorker(BackgroundWorker *worker, BackgroundWorkerHandle **handle)
{
	*handle = palloc(sizeof(BackgroundWorkerHandle));
	sim_resync_start(sim.current, DatumGetInt32(worker->bgw_main_arg));
	return true;
}

BgwHandleStatus
GetBackgroundWorkerPid(BackgroundWorkerHandle *handle, pid_t *pid)
{
	return sim.current->resync.running ? BGWH_STARTED : BGWH_STOPPED;
}

/* ---- WAL positions ---- */

bool
RecoveryInProgress(void)
{
	return sim.current->in_recovery;
}

void
PgArchWakeup(void)
{
}

bool
HotStandbyActive(void)
{
	return sim.current->in_recovery && sim.current->applied >= sim.current->disk.min_recovery;
}

XLogRecPtr
GetFlushRecPtr(TimeLineID *timeline)
{
	if (timeline != NULL)
		*timeline = sim.current->timeline;
	return sim_lsn(sim.current->disk.log.flushed);
}

XLogRecPtr
GetXLogReplayRecPtr(TimeLineID *timeline)
{
	if (timeline != NULL)
		*timeline = sim_replay_timeline(sim.current);
	return sim_lsn(sim.current->applied);
}

void
WalRcvForceReply(void)
{
}

XLogRecPtr
GetWalRcvFlushRecPtr(XLogRecPtr *start, TimeLineID *receive_timeline)
{
	uint32		n = sim.current->receiver.flushed;

	if (receive_timeline != NULL)
		*receive_timeline = n > 0 ? sim.current->disk.log.rec[n - 1].timeline : 1;
	return sim_lsn(n);
}

int
sim_clock_gettime(clockid_t id, struct timespec *ts);

int
sim_clock_gettime(clockid_t id, struct timespec *ts)
{
	int64		us = id == CLOCK_REALTIME ? sim_node_unix(sim.current) : sim_node_time(sim.current);

	ts->tv_sec = us / 1000000;
	ts->tv_nsec = us % 1000000 * 1000;
	return 0;
}

/* ---- parts of QuantaDB that have no place here ---- */

#include "cluster/internal.h"

void
qdb_certificates_begin(void)
{
}

void
qdb_certificates_reload(void)
{
}

void
qdb_certificates_turn(void)
{
}

void
qdb_receive_certificate_frame(QdbPeer *peer, const QdbFrame *frame)
{
}

const char *
qdb_judge_certificate(const QdbState *state, const QdbPeerCert *cert, const char *cluster_id,
					  uint64 member, uint64 incarnation, const char *name)
{
	return NULL;
}

void
qdb_start_init(int slot, const QdbRequest *request)
{
}

void
qdb_start_join(int slot, const QdbRequest *request)
{
}

void
qdb_join_turn(void)
{
}

QdbChannel *
qdb_join_channel(void)
{
	return NULL;
}

bool
qdb_join_pending(void)
{
	return false;
}

void
qdb_stranger_turn(QdbStranger *stranger)
{
}

void
qdb_receive_join(QdbStranger *stranger, const QdbFrame *frame)
{
}

void
qdb_start_recover(int slot, const QdbRequest *request)
{
}

bool
qdb_recover_turn(void)
{
	return false;
}

void
qdb_finish_recovery(void)
{
}

void
qdb_finish_exchange(void)
{
}

void
qdb_start_token(int slot, const QdbRequest *request)
{
}

void
qdb_observe(QdbHistogram *histogram, int64 us)
{
}

void
qdb_init_counters(QdbCounters *counters)
{
}

const char *
qdb_node_state_text(int node_state)
{
	return "";
}

uint64
qdb_cluster_hash(const char *cluster_id)
{
	return 1;
}

extern bool sim_is_sick(void);

/* What health.c would see, at once. */
bool
sim_is_sick(void)
{
	return sim.current->sick || sim.current->disk.full;
}

bool
qdb_postmaster_hangs(void)
{
	return sim.current->postmaster_hangs;
}

void
qdb_retention_turn(void)
{
}

XLogRecPtr
qdb_own_redo(void)
{
	return sim_lsn(sim.current->disk.redo);
}

bool
qdb_server_is_stopping(void)
{
	return sim.current->shutdown;
}

void
qdb_worker_end(void)
{
	sim_process_exit(false);
}

/* ---- identity and promise ---- */

bool
qdb_identity_load(QdbIdentity *identity)
{
	*identity = sim.current->disk.identity;
	return sim.current->disk.member;
}

void
qdb_identity_store(const QdbIdentity *identity)
{
	sim.current->disk.identity = *identity;
}

bool
qdb_pending_load(QdbIdentity *identity)
{
	return false;
}

bool
qdb_pending_store(const QdbIdentity *identity)
{
	return false;
}

bool
qdb_pending_remove(void)
{
	return true;
}

void
qdb_own_limits(int32 *limits)
{
	memset(limits, 0, QDB_NLIMITS * sizeof(int32));
}

bool
qdb_limits_suffice(const int32 *limits, const int32 *wanted, char *why)
{
	why[0] = '\0';
	return true;
}

bool
qdb_removed_load(const QdbIdentity *identity)
{
	return sim.current->disk.removed == identity->incarnation;
}

bool
qdb_removed_store(const QdbIdentity *identity)
{
	sim.current->disk.removed = identity->incarnation;
	return true;
}

uint64
qdb_promise_load(void)
{
	return sim.current->disk.promised;
}

uint32
qdb_rewinds_load(uint64 epoch)
{
	const SimDisk *disk = &sim.current->disk;

	return disk->rewinds_epoch == epoch ? disk->rewinds : 0;
}
