/*-------------------------------------------------------------------------
 *
 * health.c
 *		Signs of gray failures on this node, and what follows from them.
 *
 * WAL: somebody is inside a write or sync of WAL and the flush position does not
 * move.  Disk: free space under data and WAL.  Postmaster: a connection to it that
 * is closed at once must be closed by it, too, which takes an accept and a fork
 * and leaves no trace but a line with log_connections.
 *
 * What the signs mean is decided in core/health.c.  A sick voter says so in why_not,
 * and no seat goes there; a sick holder gives its seat up (handover.c).  Nothing
 * here waits: this process must go on where the disk or the postmaster does not.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <unistd.h>

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "postmaster/postmaster.h"
#include "replication/walreceiver.h"
#include "storage/proc.h"
#include "utils/wait_event.h"

#include "cluster/internal.h"
#include "core/health.h"

#define LOOK_US				(100 * 1000)
#define DISK_US				(1000 * 1000)
#define ASK_MIN_US			(250 * 1000)
#define ASK_MAX_US			(5000 * 1000)

static QdbHealth health;
static QdbSigns signs;
static QdbSignLimits limits;
static char sickness_text[QDB_REASON_SIZE];

/* The question to the postmaster. */
static int	asked_fd = -1;
static int64 asked_us = 0;		/* since when it owes an answer; 0: it does
								 * not */
static int64 next_ask_us = 0;

static bool
is_writing_wal(void)
{
	for (uint32 i = 0; i < ProcGlobal->allProcCount; i++)
	{
		switch (ProcGlobal->allProcs[i].wait_event_info)
		{
			case WAIT_EVENT_WAL_SYNC:
			case WAIT_EVENT_WAL_WRITE:
			case WAIT_EVENT_WAL_INIT_SYNC:
			case WAIT_EVENT_WAL_INIT_WRITE:
				if (ProcGlobal->allProcs[i].pid != 0)
					return true;
				break;
			default:
				break;
		}
	}
	return false;
}

/* UINT64_MAX: unknown. */
static uint64
free_space(const char *path)
{
	struct statvfs fs;

	if (statvfs(path, &fs) != 0)
		return UINT64_MAX;
	return (uint64) fs.f_bavail * fs.f_frsize;
}

/* ---- the postmaster ---- */

/* Its first Unix socket, or where it listens for TCP; -1: no address. */
static int
begin_connect(void)
{
	struct sockaddr_un local = {.sun_family = AF_UNIX};
	struct sockaddr_in tcp = {.sin_family = AF_INET,.sin_port = htons(PostPortNumber)};
	const char *folder = Unix_socket_directories;
	size_t		length = folder != NULL ? strcspn(folder, ", ") : 0;
	bool		is_local = length > 0 && folder[0] != '"' && length + 24 < sizeof(local.sun_path);
	int			fd = socket(is_local ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int			rc;

	if (fd < 0)
		return -1;
	if (is_local)
	{
		snprintf(local.sun_path, sizeof(local.sun_path), "%.*s/.s.PGSQL.%d", (int) length, folder, PostPortNumber);
		rc = connect(fd, (struct sockaddr *) &local, sizeof(local));
	}
	else
	{
		tcp.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		rc = connect(fd, (struct sockaddr *) &tcp, sizeof(tcp));
	}
	/* EAGAIN: so many wait already that the kernel takes no more. */
	if (rc == 0 || errno == EINPROGRESS || errno == EAGAIN)
		return fd;
	close(fd);
	return -1;
}

static void
end_question(int64 interval)
{
	if (asked_fd >= 0)
		close(asked_fd);
	asked_fd = -1;
	asked_us = 0;
	next_ask_us = qdb_co.now_us + interval;
}

static void
ask_postmaster(void)
{
	int64		interval = Min(Max(limits.stall_us / 4, ASK_MIN_US), ASK_MAX_US);
	char		byte;
	ssize_t		n;

	if (limits.stall_us == 0)
	{
		end_question(0);
		return;
	}
	if (asked_fd < 0)
	{
		if (qdb_co.now_us < next_ask_us)
			return;
		asked_fd = begin_connect();
		if (asked_fd < 0)
		{
			/* Nowhere to ask: no answer proves nothing. */
			end_question(interval);
			return;
		}
		if (asked_us == 0)
			asked_us = qdb_co.now_us;
		(void) shutdown(asked_fd, SHUT_WR);
		return;
	}
	n = recv(asked_fd, &byte, 1, MSG_DONTWAIT);
	if (n >= 0 || errno == ECONNRESET || errno == ECONNREFUSED)
		end_question(interval);
	else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
	{
		/* It was not connected: once more, the question stands. */
		close(asked_fd);
		asked_fd = -1;
		next_ask_us = qdb_co.now_us + LOOK_US;
	}
	else
		(void) shutdown(asked_fd, SHUT_WR);
}

/* ---- what follows ---- */

static void
look(void)
{
	static int64 next_disk_us = 0;
	bool		in_recovery = RecoveryInProgress();

	limits.stall_us = qdb_stall_timeout_ms * INT64CONST(1000);
	limits.free_bytes = (uint64) qdb_min_free_space_mb << 20;
	ask_postmaster();
	signs.now_us = qdb_co.now_us;
	signs.writing = is_writing_wal();
	signs.flush = in_recovery ? GetWalRcvFlushRecPtr(NULL, NULL) : GetFlushRecPtr(NULL);
	signs.asked_us = asked_us;
	if (qdb_co.now_us >= next_disk_us)
	{
		next_disk_us = qdb_co.now_us + DISK_US;
		signs.free_bytes = Min(free_space("."), free_space(XLOGDIR));
	}
}

bool
qdb_postmaster_hangs(void)
{
	return health.sickness == QDB_SICK_POSTMASTER && asked_us != 0;
}

const char *
qdb_sickness(void)
{
	return sickness_text;
}

void
qdb_health_turn(void)
{
	static int64 next_us = 0;
	QdbSickness before = health.sickness;
	QdbLeaderView view;

	if (qdb_co.now_us < next_us)
		return;
	next_us = qdb_co.now_us + LOOK_US;
	look();
	(void) qdb_health_look(&health, &signs, &limits);
	qdb_health_text(&health, &signs, &limits, sickness_text, sizeof(sickness_text));
	if (health.sickness != before)
	{
		if (health.sickness == QDB_WELL)
			ereport(LOG, (errmsg("[cluster] This node is well again")));
		else
			ereport(LOG, (errmsg("[cluster] This node is sick: %s", sickness_text)));
		qdb_note_event(health.sickness == QDB_WELL ? "well" : "sick", qdb_co.self.name,
					   health.sickness == QDB_WELL ? "it may be primary again" : sickness_text);
	}
	if (health.sickness == QDB_WELL || qdb_shared->open_epoch == 0 || RecoveryInProgress())
		return;
	qdb_build_view(&view);
	if (qdb_health_gives_up(qdb_co.state, &view,
							pg_atomic_read_u64(&qdb_shared->quorum_lsn) >= signs.flush))
		qdb_give_seat_up(sickness_text, health.sickness == QDB_SICK_WAL);
}
