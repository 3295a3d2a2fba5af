/*
 * shim.c
 *		A disk and a clock that a chaos run can spoil, below an unsuspecting server.
 *
 * Built twice.  As a library (LD_PRELOAD, QDB_SHIM names its folder, QDB_SHIM_DATA
 * the data directory) it stands between the server and libc.  As a program it
 * gives orders to all processes that have the library:
 *
 *	shim DIR set NAME=VALUE...	sync_delay_ms, sync_fail (how many), full (0 or 1),
 *								path (part of the names of the files that these
 *								are for), undo, rate (of the clocks, 1 is true), jump_ms
 *	shim DIR lose SEED			what the disk forgets when the power goes
 *
 * Undo: before a file below the data directory is changed, what was there goes to a log
 * in DIR, and its sync removes the log.  So "lose", when all processes are dead, can
 * undo what was never synced.  It does that file by file: of each file all
 * of it or nothing, as SEED will have it (0: nothing).  Entries of folders (creations, renames,
 * removals) are kept until the folder is synced; with undo=1 only those of the extension's
 * own folder and of the files that say how to boot, for PostgreSQL itself
 * relies in places on file systems that order them; with undo=2 those of all folders.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

typedef struct Control
{
	volatile int32_t sync_delay_ms;
	volatile int32_t sync_fail;
	volatile int32_t full;
	volatile int32_t undo;
	volatile uint32_t version;	/* of what follows; odd: being changed */
	double		rate;
	int64_t		true_ns;		/* monotonic; at this moment both fake clocks ... */
	int64_t		mono_ns;		/* ... showed these */
	int64_t		wall_ns;
	char		path[64];
} Control;

/* Before a change: what was at offset, and how long the file was. */
typedef struct Undo
{
	int64_t		offset;
	int64_t		old_size;
	int64_t		length;
} Undo;

/* Before an entry of a folder changed: 'C'reated, 'R'enamed from "from", 'U'nlinked. */
typedef struct Entry
{
	char		what;
	char		path[1024];
	char		from[1024];
	char		kept[64];		/* link in DIR to the file that was there; "" none */
} Entry;

static Control *control = NULL;
static char dir[512] = "";

static int64_t
ns_of(const struct timespec *ts)
{
	return ts->tv_sec * INT64_C(1000000000) + ts->tv_nsec;
}

static void
attach(const char *folder)
{
	char		path[600];
	int			fd;

	snprintf(path, sizeof(path), "%s/control", folder);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return;
	control = mmap(NULL, sizeof(Control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (control == MAP_FAILED)
		control = NULL;
	else
		snprintf(dir, sizeof(dir), "%s", folder);
}

#ifndef SHIM_PROGRAM

static char data[512] = "";

#define REAL(name) ({ static __typeof__(&name) real_; if (real_ == NULL) real_ = (__typeof__(&name)) dlsym(RTLD_NEXT, #name); real_; })

__attribute__((constructor)) static void
begin(void)
{
	const char *folder = getenv("QDB_SHIM");
	const char *below = getenv("QDB_SHIM_DATA");

	if (folder == NULL || below == NULL)
		return;
	snprintf(data, sizeof(data), "%s/", below);
	attach(folder);
}

/* Is fd a file of the data directory?  Its path from there on, or NULL. */
static const char *
file_of(int fd, struct stat *st, char *path, size_t size)
{
	char		link[64];
	size_t		below;
	ssize_t		n;

	if (control == NULL || fstat(fd, st) != 0 || !(S_ISREG(st->st_mode) || S_ISDIR(st->st_mode)))
		return NULL;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, size - 1);
	if (n <= 0)
		return NULL;
	path[n] = '\0';
	below = strlen(data) - 1;	/* the directory itself has no slash at its end */
	if (strncmp(path, data, below) != 0 || (path[below] != '/' && path[below] != '\0'))
		return NULL;
	return path + below;
}

static int
selected(const char *path)
{
	return control->path[0] == '\0' || strstr(path, control->path) != NULL;
}

/* The locked log of an inode; -1: none (or, with create, it could not be made). */
static int
open_log(const char *kind, const struct stat *st, int create)
{
	char		path[700];
	int			save_errno = errno;
	int			fd = -1;

	snprintf(path, sizeof(path), "%s/%s.%lx.%lx", dir, kind, (long) st->st_dev, (long) st->st_ino);
	for (;;)
	{
		struct stat log;

		fd = REAL(open) (path, O_RDWR | O_APPEND | O_CLOEXEC | (create ? O_CREAT : 0), 0600);
		if (fd < 0)
			break;
		if (flock(fd, LOCK_EX) == 0 && fstat(fd, &log) == 0 && log.st_nlink > 0)
			break;
		close(fd);				/* somebody has just removed it */
	}
	errno = save_errno;
	return fd;
}

static void
remove_log(const char *kind, const struct stat *st)
{
	char		path[700];

	snprintf(path, sizeof(path), "%s/%s.%lx.%lx", dir, kind, (long) st->st_dev, (long) st->st_ino);
	REAL(unlink) (path);
	snprintf(path, sizeof(path), "%s/file.%lx.%lx", dir, (long) st->st_dev, (long) st->st_ino);
	REAL(unlink) (path);
}

/* Remembers what length bytes at offset were; the log stays locked until the change is made. */
static int
remember(int fd, const struct stat *st, int64_t offset, int64_t length)
{
	char		link[64];
	char		name[700];
	Undo		undo = {offset, st->st_size, 0};
	char	   *old;
	int			log;

	if (!control->undo || !S_ISREG(st->st_mode) || st->st_nlink == 0)
		return -1;
	log = open_log("undo", st, 1);
	if (log < 0)
		return -1;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	snprintf(name, sizeof(name), "%s/file.%lx.%lx", dir, (long) st->st_dev, (long) st->st_ino);
	(void) linkat(AT_FDCWD, link, AT_FDCWD, name, AT_SYMLINK_FOLLOW);
	if (offset < st->st_size)
		undo.length = offset + length <= st->st_size ? length : st->st_size - offset;
	old = malloc(sizeof(undo) + undo.length);
	if (old != NULL)
	{
		int			in = REAL(open) (link, O_RDONLY | O_CLOEXEC);	/* fd may be for writing only */

		if (undo.length > 0 && (in < 0 || pread(in, old + sizeof(undo), undo.length, offset) != undo.length))
			undo.length = 0;
		memcpy(old, &undo, sizeof(undo));
		if (REAL(write) (log, old, sizeof(undo) + undo.length) < 0)
			abort();
		if (in >= 0)
			close(in);
		free(old);
	}
	return log;
}

/*
 * Before a change of a file; false with errno: the disk is full.  *log is to be
 * closed after the change.
 */
static int
may_change(int fd, int64_t offset, int64_t length, int *log)
{
	char		path[1024];
	struct stat st;
	const char *name = file_of(fd, &st, path, sizeof(path));

	*log = -1;
	if (name == NULL)
		return 1;
	if (offset < 0)
		offset = fcntl(fd, F_GETFL) & O_APPEND ? st.st_size : lseek(fd, 0, SEEK_CUR);
	if (control->full && offset + length > st.st_size && selected(name))
	{
		errno = ENOSPC;
		return 0;
	}
	*log = remember(fd, &st, offset, length);
	return 1;
}

static void
changed(int log)
{
	int			save_errno = errno;

	if (log >= 0)
		close(log);
	errno = save_errno;
}

static int64_t
total(const struct iovec *iov, int n)
{
	int64_t		sum = 0;

	for (int i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return sum;
}

#define CHANGING(fd, offset, length, call) \
	do { int log; __typeof__(call) result_; \
		if (!may_change(fd, offset, length, &log)) return -1; \
		result_ = call; changed(log); return result_; } while (0)

ssize_t write(int fd, const void *buf, size_t n) { CHANGING(fd, -1, n, REAL(write) (fd, buf, n)); }
ssize_t pwrite(int fd, const void *buf, size_t n, off_t at) { CHANGING(fd, at, n, REAL(pwrite) (fd, buf, n, at)); }
ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t at) { CHANGING(fd, at, n, REAL(pwrite64) (fd, buf, n, at)); }
ssize_t writev(int fd, const struct iovec *iov, int n) { CHANGING(fd, -1, total(iov, n), REAL(writev) (fd, iov, n)); }
ssize_t pwritev(int fd, const struct iovec *iov, int n, off_t at) { CHANGING(fd, at, total(iov, n), REAL(pwritev) (fd, iov, n, at)); }
ssize_t pwritev64(int fd, const struct iovec *iov, int n, off64_t at) { CHANGING(fd, at, total(iov, n), REAL(pwritev64) (fd, iov, n, at)); }

static int64_t
size_past(int fd, int64_t size)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_size > size ? st.st_size - size : 0;
}

int ftruncate(int fd, off_t size) { CHANGING(fd, size, size_past(fd, size), REAL(ftruncate) (fd, size)); }
int ftruncate64(int fd, off64_t size) { CHANGING(fd, size, size_past(fd, size), REAL(ftruncate64) (fd, size)); }

#define CHANGING_PATH(path, size, call) \
	int			fd = REAL(open) (path, O_RDWR | O_CLOEXEC); \
	int			log = -1; \
	int			result = -1; \
	if (fd >= 0 && may_change(fd, size, size_past(fd, size), &log)) \
		result = call; \
	changed(log); \
	if (fd >= 0) \
		close(fd); \
	return result

int truncate(const char *path, off_t size) { CHANGING_PATH(path, size, REAL(truncate) (path, size)); }
int truncate64(const char *path, off64_t size) { CHANGING_PATH(path, size, REAL(truncate64) (path, size)); }
int fallocate(int fd, int mode, off_t at, off_t n) { CHANGING(fd, at, n, REAL(fallocate) (fd, mode, at, n)); }

int
posix_fallocate(int fd, off_t at, off_t n)
{
	int			log;
	int			result;

	if (!may_change(fd, at, n, &log))
		return errno;
	result = REAL(posix_fallocate) (fd, at, n);
	changed(log);
	return result;
}

/* ---- sync ---- */

static int
spoil_sync(const char *name)
{
	if (!selected(name))
		return 0;
	if (control->sync_delay_ms > 0)
		REAL(usleep) (control->sync_delay_ms * 1000);
	if (control->sync_fail > 0 && __sync_fetch_and_sub(&control->sync_fail, 1) > 0)
	{
		errno = EIO;
		return -1;
	}
	return 0;
}

#define SYNCING(fd, call) \
	char		path[1024]; \
	struct stat st; \
	const char *name = file_of(fd, &st, path, sizeof(path)); \
	const char *kind = name != NULL && S_ISDIR(st.st_mode) ? "entries" : "undo"; \
	int			log; \
	int			result; \
	if (name == NULL) \
		return call; \
	if (spoil_sync(name) != 0) \
		return -1; \
	log = open_log(kind, &st, 0); \
	result = call; \
	if (log >= 0 && result == 0) \
		remove_log(kind, &st); \
	changed(log); \
	return result

int fsync(int fd) { SYNCING(fd, REAL(fsync) (fd)); }
int fdatasync(int fd) { SYNCING(fd, REAL(fdatasync) (fd)); }

int
syncfs(int fd)
{
	int			result = REAL(syncfs) (fd);
	DIR		   *folder;
	struct dirent *entry;

	if (control == NULL || result != 0 || (folder = opendir(dir)) == NULL)
		return result;
	while ((entry = readdir(folder)) != NULL)
	{
		if (strchr(entry->d_name, '.') != NULL && entry->d_name[0] != '.')
			unlinkat(dirfd(folder), entry->d_name, 0);
	}
	closedir(folder);
	return result;
}

/* ---- entries of folders ---- */

/* Absolute, if its entry is one that is watched; else NULL. */
static const char *
watched(const char *path, char *full)
{
	static const char *const boot[] = {"standby.signal", "recovery.signal", "backup_label", "promote"};
	const char *name;

	if (control == NULL || !control->undo)
		return NULL;
	if (path[0] == '/')
		snprintf(full, 1024, "%s", path);
	else if (getcwd(full, 512) == NULL)
		return NULL;
	else
		snprintf(full + strlen(full), 500, "/%s", path);
	if (strncmp(full, data, strlen(data)) != 0)
		return NULL;
	name = full + strlen(data);
	if (control->undo > 1 || strncmp(name, "quantadb/", 9) == 0)
		return full;
	for (int i = 0; i < 4; i++)
	{
		if (strcmp(name, boot[i]) == 0)
			return full;
	}
	return NULL;
}

/* Notes an entry before it changes; returns the log, locked. */
static int
note_entry(char what, const char *path, const char *from)
{
	static int	number = 0;
	Entry		entry = {.what = what};
	char		folder[1024];
	char		kept[700];
	struct stat st;
	int			log;

	snprintf(entry.path, sizeof(entry.path), "%s", path);
	snprintf(entry.from, sizeof(entry.from), "%s", from != NULL ? from : "");
	snprintf(folder, sizeof(folder), "%s", path);
	*strrchr(folder, '/') = '\0';
	if (stat(folder, &st) != 0 || (log = open_log("entries", &st, 1)) < 0)
		return -1;
	if (what != 'C' && lstat(path, &st) == 0 && S_ISREG(st.st_mode))
	{
		snprintf(entry.kept, sizeof(entry.kept), "kept.%d.%d", (int) getpid(), ++number);
		snprintf(kept, sizeof(kept), "%s/%s", dir, entry.kept);
		if (linkat(AT_FDCWD, path, AT_FDCWD, kept, 0) != 0)
			entry.kept[0] = '\0';
	}
	if (REAL(write) (log, &entry, sizeof(entry)) != sizeof(entry))
		abort();
	return log;
}

static int
renaming(const char *from, const char *to)
{
	char		full_from[1100];
	char		full_to[1100];

	return watched(to, full_to) != NULL && watched(from, full_from) != NULL ? note_entry('R', full_to, full_from) : -1;
}

int
rename(const char *from, const char *to)
{
	int			log = renaming(from, to);
	int			result = REAL(rename) (from, to);

	changed(log);
	return result;
}

/* The path of a name in an open folder. */
static const char *
path_at(int folder, const char *name, char *full)
{
	char		link[64];
	ssize_t		n;

	if (folder == AT_FDCWD || name[0] == '/')
		return name;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", folder);
	n = readlink(link, full, 700);
	snprintf(full + (n > 0 ? n : 0), 300, "/%s", name);
	return full;
}

int
renameat(int from_folder, const char *from, int to_folder, const char *to)
{
	char		full_from[1100];
	char		full_to[1100];
	int			log = control == NULL ? -1 : renaming(path_at(from_folder, from, full_from), path_at(to_folder, to, full_to));
	int			result = REAL(renameat) (from_folder, from, to_folder, to);

	changed(log);
	return result;
}

int
unlink(const char *path)
{
	char		full[1100];
	int			log = watched(path, full) != NULL && access(path, F_OK) == 0 ? note_entry('U', full, NULL) : -1;
	int			result = REAL(unlink) (path);

	changed(log);
	return result;
}

int
unlinkat(int folder, const char *name, int flags)
{
	char		at[1100];
	char		full[1100];
	const char *path = control == NULL ? name : path_at(folder, name, at);
	int			log = flags == 0 && watched(path, full) != NULL && access(path, F_OK) == 0 ? note_entry('U', full, NULL) : -1;
	int			result = REAL(unlinkat) (folder, name, flags);

	changed(log);
	return result;
}

/* A file that is made is an entry; one that is emptied is a change. */
static int
opening(const char *path, int flags)
{
	char		full[1100];
	struct stat st;

	if (control == NULL || !control->undo || !(flags & (O_CREAT | O_TRUNC)))
		return -1;
	if (stat(path, &st) != 0)
		return flags & O_CREAT && watched(path, full) != NULL ? note_entry('C', full, NULL) : -1;
	if (flags & O_TRUNC && S_ISREG(st.st_mode) && st.st_size > 0)
	{
		int			fd = REAL(open) (path, O_RDWR | O_CLOEXEC);
		int			log = -1;

		if (fd >= 0)
		{
			(void) may_change(fd, 0, st.st_size, &log);
			close(fd);
		}
		return log;
	}
	return -1;
}

#define OPENING(path, call) \
	va_list		args; \
	int			mode; \
	int			log = opening(path, flags); \
	int			result; \
	va_start(args, flags); \
	mode = flags & O_CREAT ? va_arg(args, int) : 0; \
	va_end(args); \
	result = call; \
	changed(log); \
	return result

int open(const char *path, int flags, ...) { OPENING(path, REAL(open) (path, flags, mode)); }
int open64(const char *path, int flags, ...) { OPENING(path, REAL(open64) (path, flags, mode)); }

int
openat(int folder, const char *name, int flags, ...)
{
	char		full[1100];
	const char *path = control == NULL ? name : path_at(folder, name, full);

	OPENING(path, REAL(openat) (folder, name, flags, mode));
}

/* ---- clocks ---- */

/* The fake time of a clock, or -1 when the clocks are true. */
static int64_t
fake_ns(int wall)
{
	struct timespec ts;
	Control		c;
	uint32_t	version;

	if (control == NULL || control->version == 0)
		return -1;
	do
	{
		version = control->version;
		__sync_synchronize();
		c = *(Control *) control;
		__sync_synchronize();
	} while (version % 2 != 0 || version != control->version);
	REAL(clock_gettime) (CLOCK_MONOTONIC, &ts);
	return (wall ? c.wall_ns : c.mono_ns) + (int64_t) ((double) (ns_of(&ts) - c.true_ns) * c.rate);
}

static double
rate(void)
{
	return control == NULL || control->version == 0 || control->rate <= 0 ? 1 : control->rate;
}

int
clock_gettime(clockid_t clock, struct timespec *ts)
{
	int			wall = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
	int64_t		ns = wall || clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE ? fake_ns(wall) : -1;

	if (ns < 0)
		return REAL(clock_gettime) (clock, ts);
	ts->tv_sec = ns / 1000000000;
	ts->tv_nsec = ns % 1000000000;
	return 0;
}

int
gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
	int64_t		ns = fake_ns(1);

	if (ns < 0)
		return REAL(gettimeofday) (tv, zone);
	tv->tv_sec = ns / 1000000000;
	tv->tv_usec = ns % 1000000000 / 1000;
	return 0;
}

time_t
time(time_t *where)
{
	int64_t		ns = fake_ns(1);
	time_t		now = ns < 0 ? REAL(time) (NULL) : ns / 1000000000;

	if (where != NULL)
		*where = now;
	return now;
}

static int
true_ms(int ms)
{
	return ms <= 0 ? ms : (int) (ms / rate()) + (rate() != 1);
}

static void
true_timeval(struct timeval *tv)
{
	int64_t		us = (int64_t) ((tv->tv_sec * 1000000.0 + tv->tv_usec) / rate());

	if (us == 0 && (tv->tv_sec != 0 || tv->tv_usec != 0))
		us = 1;
	tv->tv_sec = us / 1000000;
	tv->tv_usec = us % 1000000;
}

int epoll_wait(int fd, struct epoll_event *events, int n, int ms) { return REAL(epoll_wait) (fd, events, n, true_ms(ms)); }
int poll(struct pollfd *fds, nfds_t n, int ms) { return REAL(poll) (fds, n, true_ms(ms)); }
int usleep(useconds_t us) { return REAL(usleep) ((useconds_t) (us / rate())); }

int
select(int n, fd_set *restrict r, fd_set *restrict w, fd_set *restrict e, struct timeval *restrict tv)
{
	struct timeval real;

	if (tv == NULL || rate() == 1)
		return REAL(select) (n, r, w, e, tv);
	real = *tv;
	true_timeval(&real);
	return REAL(select) (n, r, w, e, &real);
}

int
setitimer(__itimer_which_t which, const struct itimerval *restrict new, struct itimerval *restrict old)
{
	struct itimerval real = *new;

	true_timeval(&real.it_value);
	true_timeval(&real.it_interval);
	return REAL(setitimer) (which, &real, old);
}

#else							/* the program */

static int
fail(const char *what)
{
	perror(what);
	return 1;
}

static void
set_clock(double rate, int64_t jump_ms)
{
	struct timespec mono;
	struct timespec wall;
	int64_t		passed;

	clock_gettime(CLOCK_MONOTONIC, &mono);
	clock_gettime(CLOCK_REALTIME, &wall);
	if (control->version == 0)
	{
		control->mono_ns = control->true_ns = ns_of(&mono);
		control->wall_ns = ns_of(&wall);
		control->rate = 1;
	}
	control->version++;
	__sync_synchronize();
	passed = (int64_t) ((double) (ns_of(&mono) - control->true_ns) * control->rate);
	control->true_ns = ns_of(&mono);
	control->mono_ns += passed;
	control->wall_ns += passed + jump_ms * INT64_C(1000000);
	if (rate > 0)
		control->rate = rate;
	__sync_synchronize();
	control->version++;
}

static int
set(const char *name, const char *value)
{
	if (strcmp(name, "sync_delay_ms") == 0)
		control->sync_delay_ms = atoi(value);
	else if (strcmp(name, "sync_fail") == 0)
		control->sync_fail = atoi(value);
	else if (strcmp(name, "full") == 0)
		control->full = atoi(value);
	else if (strcmp(name, "undo") == 0)
		control->undo = atoi(value);
	else if (strcmp(name, "path") == 0)
		snprintf(control->path, sizeof(control->path), "%s", value);
	else if (strcmp(name, "rate") == 0)
		set_clock(atof(value), 0);
	else if (strcmp(name, "jump_ms") == 0)
		set_clock(0, atoll(value));
	else
		return 0;
	return 1;
}

/* A whole log in memory. */
static char *
read_log(const char *name, size_t *size)
{
	struct stat st;
	int			fd = open(name, O_RDONLY);
	char	   *bytes = NULL;

	if (fd >= 0 && fstat(fd, &st) == 0 && (bytes = malloc(st.st_size + 1)) != NULL)
		*size = read(fd, bytes, st.st_size) == st.st_size ? st.st_size : 0;
	if (fd >= 0)
		close(fd);
	return bytes;
}

/* The last change first; one whose record is torn never began. */
static int
undo_file(const char *log_name)
{
	char		file[300];
	size_t		size = 0;
	char	   *bytes = read_log(log_name, &size);
	const Undo **records = calloc(size / sizeof(Undo) + 1, sizeof(Undo *));
	int			n = 0;
	int			fd;

	snprintf(file, sizeof(file), "file.%s", strchr(log_name, '.') + 1);
	fd = open(file, O_RDWR);
	if (fd < 0 || bytes == NULL || records == NULL)
		return 0;
	for (size_t at = 0; at + sizeof(Undo) <= size;)
	{
		const Undo *undo = (const Undo *) (bytes + at);

		at += sizeof(Undo) + undo->length;
		if (at <= size)
			records[n++] = undo;
	}
	for (int i = n - 1; i >= 0; i--)
	{
		if (pwrite(fd, records[i] + 1, records[i]->length, records[i]->offset) != records[i]->length ||
			ftruncate(fd, records[i]->old_size) != 0)
			perror(file);
	}
	close(fd);
	free(bytes);
	free(records);
	return n;
}

static int
undo_entries(const char *log_name)
{
	size_t		size = 0;
	char	   *bytes = read_log(log_name, &size);
	int			n = bytes != NULL ? size / sizeof(Entry) : 0;

	for (int i = n - 1; i >= 0; i--)
	{
		const Entry *entry = (const Entry *) bytes + i;

		/* Of a rename that was not made after all there is nothing to take back. */
		if (entry->what == 'R' && access(entry->from, F_OK) != 0)
			(void) rename(entry->path, entry->from);
		else if (entry->what == 'C')
			(void) unlink(entry->path);
		if (entry->kept[0] != '\0' && access(entry->path, F_OK) != 0)
			(void) rename(entry->kept, entry->path);
	}
	free(bytes);
	return n;
}

/* Entries first: a file that goes back to its name takes its changes along. */
static int
lose(unsigned int seed)
{
	static const char *const kinds[] = {"entries.", "undo."};
	int			files = 0;
	int			changes = 0;
	int			kept = 0;

	srand(seed);
	if (chdir(dir) != 0)
		return fail(dir);
	for (int k = 0; k < 2; k++)
	{
		DIR		   *folder = opendir(".");
		struct dirent *entry;

		while (folder != NULL && (entry = readdir(folder)) != NULL)
		{
			if (strncmp(entry->d_name, kinds[k], strlen(kinds[k])) != 0)
				continue;
			files++;
			if (seed != 0 && rand() % 3 == 0)
				kept++;
			else
				changes += k == 0 ? undo_entries(entry->d_name) : undo_file(entry->d_name);
		}
		closedir(folder);
	}
	printf("%d changes lost of %d files that were not synced, %d of them kept\n", changes, files, kept);
	return system("rm -f undo.* file.* entries.* kept.*") == 0 ? 0 : 1;
}

int
main(int argc, char **argv)
{
	if (argc > 1)
		attach(argv[1]);
	if (control == NULL)
		return fail("control");
	if (argc == 4 && strcmp(argv[2], "lose") == 0)
		return lose(atoi(argv[3]));
	for (int i = 3; i < argc; i++)
	{
		char	   *value = strchr(argv[i], '=');

		if (value == NULL)
			return 2;
		*value++ = '\0';
		if (!set(argv[i], value))
			return 2;
	}
	return 0;
}
#endif
