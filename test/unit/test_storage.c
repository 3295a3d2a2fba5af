/*-------------------------------------------------------------------------
 *
 * test_storage.c
 *		The files of a Raft node, when a process dies and then the machine.
 *
 * What a new process reads may be in the memory of the machine only.  The calls that write
 * and sync are wrapped (run_raft.sh), so that it is known what is on the disk: ranges of a
 * file that were synced after they were written, and names whose folder was.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cluster/raft_storage.h"

#define MAX_FILE	(64 * 1024)
#define MAX_DISK	32
#define MAX_DIRTY	32

extern ssize_t __real_pwrite(int fd, const void *buf, size_t n, off_t offset);
extern int	__real_renameat(int from_fd, const char *from, int to_fd, const char *to);
extern ssize_t __wrap_pwrite(int fd, const void *buf, size_t n, off_t offset);
extern int	__wrap_fsync(int fd);
extern int	__wrap_fdatasync(int fd);
extern int	__wrap_renameat(int from_fd, const char *from, int to_fd, const char *to);

typedef struct Disk
{
	ino_t		inode;			/* 0: unused */
	uint8_t		memory[MAX_FILE];
	uint8_t		bytes[MAX_FILE];
	size_t		size;
	size_t		ndirty;			/* written, not synced */
	off_t		begin[MAX_DIRTY];
	off_t		end[MAX_DIRTY];
} Disk;

/* A name that may still be the older file's on the disk. */
static struct
{
	char		name[64];		/* empty: none */
	bool		existed;
	Disk		old;
}			renamed;

/* How a sync ends that does not work: as if its process was killed, or with EIO and clean pages. */
typedef enum Fault
{
	NONE,
	KILLED,
	FAILED
} Fault;

static Fault fault;
static int	working_syncs;		/* before it */

static Disk disks[MAX_DISK];
static char dir[512];
static int	ntests;
static int	nfailed;

static void
check(bool ok, const char *name)
{
	printf("%s %d - %s\n", ok ? "ok" : "not ok", ++ntests, name);
	nfailed += !ok;
}

static Disk *
find_disk(ino_t inode)
{
	for (int i = 0; i < MAX_DISK; i++)
		if (disks[i].inode == inode)
			return &disks[i];
	return NULL;
}

static Disk *
disk_of(int fd)
{
	struct stat st;
	Disk	   *disk;

	if (fstat(fd, &st) != 0)
		abort();
	disk = find_disk(st.st_ino);
	if (disk == NULL)
		disk = find_disk(0);
	if (disk == NULL)
		abort();
	disk->inode = st.st_ino;
	return disk;
}

ssize_t
__wrap_pwrite(int fd, const void *buf, size_t n, off_t offset)
{
	Disk	   *disk = disk_of(fd);

	if (disk->ndirty == MAX_DIRTY || offset + (off_t) n > MAX_FILE)
		abort();
	memcpy(disk->memory + offset, buf, n);
	disk->begin[disk->ndirty] = offset;
	disk->end[disk->ndirty++] = offset + (off_t) n;
	return __real_pwrite(fd, buf, n, offset);
}

int
__wrap_fsync(int fd)
{
	struct stat st;
	Disk	   *disk;

	if (fstat(fd, &st) != 0)
		abort();
	disk = S_ISDIR(st.st_mode) ? NULL : disk_of(fd);
	if (fault != NONE && working_syncs-- == 0)
	{
		if (fault == FAILED && disk != NULL)
			disk->ndirty = 0;
		fault = NONE;
		errno = EIO;
		return -1;
	}
	if (disk == NULL)
	{
		renamed.name[0] = '\0';
		return 0;
	}
	for (size_t i = 0; i < disk->ndirty; i++)
		memcpy(disk->bytes + disk->begin[i], disk->memory + disk->begin[i], (size_t) (disk->end[i] - disk->begin[i]));
	disk->ndirty = 0;
	disk->size = (size_t) st.st_size;
	return 0;
}

int
__wrap_fdatasync(int fd)
{
	return __wrap_fsync(fd);
}

/* The older file's inode may be used again at once. */
int
__wrap_renameat(int from_fd, const char *from, int to_fd, const char *to)
{
	struct stat st;
	Disk	   *old = fstatat(to_fd, to, &st, 0) == 0 ? find_disk(st.st_ino) : NULL;

	if (renamed.name[0] != '\0')
		abort();
	renamed.existed = old != NULL;
	if (old != NULL)
	{
		renamed.old = *old;
		memset(old, 0, sizeof(*old));
	}
	snprintf(renamed.name, sizeof(renamed.name), "%s", to);
	return __real_renameat(from_fd, from, to_fd, to);
}

/* The file becomes what the disk has of it. */
static void
put_back(const char *name, const Disk *disk)
{
	char		path[1024];
	FILE	   *file;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "w");
	if (file == NULL || fwrite(disk->bytes, 1, disk->size, file) != disk->size || fclose(file) != 0)
		abort();
}

static void
lose_power(void)
{
	static const char *const names[] = {"raft.log", "raft.meta"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		char		path[1024];
		struct stat st;

		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		if (strcmp(renamed.name, names[i]) == 0 && renamed.existed)
			put_back(names[i], &renamed.old);
		else if (stat(path, &st) == 0 && find_disk(st.st_ino) != NULL)
			put_back(names[i], find_disk(st.st_ino));
	}
	renamed.name[0] = '\0';
	memset(disks, 0, sizeof(disks));
}

static QdbRaftStorage *
begin(const char *top, const char *name)
{
	char		why[256];

	snprintf(dir, sizeof(dir), "%s/%s", top, name);
	memset(disks, 0, sizeof(disks));
	memset(&renamed, 0, sizeof(renamed));
	if (!qdb_storage_create(dir, 1, 2, (const uint8_t *) "first", 5, why, sizeof(why)))
		abort();
	return qdb_storage_open(dir, 1, why, sizeof(why));
}

static QdbRaftStorage *
open_again(void)
{
	char		why[256];

	return qdb_storage_open(dir, 1, why, sizeof(why));
}

/* An entry that a new process has read, and may acknowledge, outlives the machine. */
static void
test_entry(const char *top, Fault how, const char *name)
{
	QdbRaftStorage *s = begin(top, name);
	char		read[8] = "";

	check(qdb_storage_append(s, 1, 2, "second", 7) && qdb_storage_sync(s) &&
		  qdb_storage_append(s, 1, 2, "third", 6), name);
	fault = how;
	working_syncs = 0;
	check(!qdb_storage_sync(s), "a sync does not end well");
	qdb_storage_close(s);
	s = open_again();
	check(s != NULL && qdb_storage_last_index(s) == 3, "the next process has the entry all the same");
	qdb_storage_close(s);
	lose_power();
	s = open_again();
	check(s != NULL && qdb_storage_last_index(s) == 3 && qdb_storage_read(s, 3, read) &&
		  strcmp(read, "third") == 0, "and still has it when the machine has died");
	qdb_storage_close(s);
}

/* The same for a vote: its file is on the disk, under its old name. */
static void
test_vote(const char *top)
{
	QdbRaftStorage *s = begin(top, "vote");

	qdb_storage_set_term(s, 7);
	qdb_storage_set_vote(s, 2);
	fault = KILLED;
	working_syncs = 1;
	check(!qdb_storage_sync_meta(s), "a vote, and the sync of the folder does not end");
	qdb_storage_close(s);
	s = open_again();
	check(s != NULL && s->term == 7 && s->vote == 2, "the next process has voted");
	qdb_storage_close(s);
	lose_power();
	s = open_again();
	check(s != NULL && s->term == 7 && s->vote == 2, "and still has when the machine has died");
	qdb_storage_close(s);
}

int
main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	test_entry(argv[1], KILLED, "killed");
	test_entry(argv[1], FAILED, "failed");
	test_vote(argv[1]);
	printf("1..%d\n", ntests);
	return nfailed != 0;
}
