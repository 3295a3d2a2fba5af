/*-------------------------------------------------------------------------
 *
 * identity.c
 *		Who this data directory is, and what it has promised; both durable.
 *
 * A copied or restored data directory carries a copy of the folder too.  The
 * identity therefore names the inode of the directory it belongs to, the system
 * identifier, and the inode and time of birth of its own file, which is made anew at
 * each boot: a backup that was put back in place of what it was taken from has
 * another one.  Where they do not fit, or where recovery.signal or a backup's label says
 * that this is a restored backup, the folder is set aside and the server is a stranger
 * (I16).  What no file can tell, a block device that was set back, is left to the
 * peers, which refuse a boot number that is not above the last.
 *
 * All paths are relative to the data directory, which is every server
 * process's working directory.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "catalog/pg_control.h"
#include "common/controldata_utils.h"
#include "common/file_perm.h"
#include "miscadmin.h"
#include "storage/fd.h"

#define IDENTITY_PATH	QDB_DIR "/identity"
#define PENDING_PATH	QDB_DIR "/joining"
#define REMOVED_PATH	QDB_DIR "/removed"
#define REWINDS_PATH	QDB_DIR "/rewinds"
#define PROMISE_PATH	QDB_DIR "/promise"
#define IDENTITY_FORMAT	2		/* another one is refused */
#define MAX_FILE		2048
#define LABEL_SIZE		1024	/* of backup_label that is looked at */
#define OUR_LABEL		"BACKUP METHOD: quantadb"
#define CRC_LINE		13		/* "crc=", eight digits, newline */

/*
 * Reads a small file whose last line is "crc=%08x" over all before it; a name
 * may contain "crc=" too, so only the end of the file is looked at.  Returns its
 * length without that line, 0 if there is no such file, -1 if damaged.  FATAL
 * when it cannot be read: nobody knows then what it says.
 */
static int
read_checked(const char *path, char *buf, size_t size)
{
	int			fd = open(path, O_RDONLY | PG_BINARY);
	ssize_t		n;
	char	   *last;
	char		line[CRC_LINE + 1];

	if (fd < 0 && errno == ENOENT)
		return 0;
	n = fd < 0 ? -1 : read(fd, buf, size - 1);
	if (n < 0)
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("[cluster] could not read file \"%s\": %m", path)));
	close(fd);
	if (n <= CRC_LINE)
		return -1;
	buf[n] = '\0';
	last = buf + n - CRC_LINE;
	snprintf(line, sizeof(line), "crc=%08x\n", (unsigned int) qdb_crc32c(0, buf, last - buf));
	if (strcmp(last, line) != 0)
		return -1;
	*last = '\0';
	return last - buf;
}

static bool
write_checked(const char *path, const char *text)
{
	char		buf[MAX_FILE];
	int			n;

	n = snprintf(buf, sizeof(buf), "%scrc=%08x\n", text,
				 (unsigned int) qdb_crc32c(0, text, strlen(text)));
	if (n < 0 || n >= sizeof(buf))
		return false;
	return qdb_write_file(path, buf, n);
}

static bool
sync_directory(const char *path)
{
	int			fd = open(path, O_RDONLY);
	bool		ok;

	if (fd < 0)
		return false;
	ok = fsync(fd) == 0;
	close(fd);
	return ok;
}

static bool
write_and_close(int fd, const void *data, size_t len)
{
	bool		ok;

	errno = 0;
	ok = write(fd, data, len) == (ssize_t) len;
	if (!ok && errno == 0)
		errno = ENOSPC;
	ok = ok && fsync(fd) == 0;
	if (close(fd) != 0)
		ok = false;
	return ok;
}

static int
open_temp(const char *path, char *temp)
{
	snprintf(temp, MAXPGPATH, "%s.tmp", path);
	if (mkdir(QDB_DIR, pg_dir_create_mode) != 0 && errno != EEXIST)
		return -1;
	return open(temp, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY, pg_file_create_mode);
}

/* Durably makes an open temporary file the file; false: logged. */
static bool
finish_file(const char *path, const char *temp, int fd, const void *data, size_t len)
{
	if (fd >= 0 && write_and_close(fd, data, len) && rename(temp, path) == 0 &&
		sync_directory(QDB_DIR) && sync_directory("."))
		return true;
	ereport(LOG,
			(errcode_for_file_access(),
			 errmsg("[cluster] could not write file \"%s\": %m", path)));
	return false;
}

bool
qdb_write_file(const char *path, const void *data, size_t len)
{
	char		temp[MAXPGPATH];

	return finish_file(path, temp, open_temp(path, temp), data, len);
}

/* Which file is it?  *born is 0 where the file system does not say. */
static bool
read_birth(int fd, const char *path, uint64 *inode, uint64 *born)
{
	struct statx st;

	if (statx(fd, path, *path == '\0' ? AT_EMPTY_PATH : 0, STATX_INO | STATX_BTIME, &st) != 0)
		return false;
	*inode = st.stx_ino;
	*born = (st.stx_mask & STATX_BTIME) != 0 ?
		(uint64) st.stx_btime.tv_sec * 1000000000 + st.stx_btime.tv_nsec : 0;
	return true;
}

static uint64
data_directory_inode(void)
{
	struct stat st;

	if (stat(".", &st) != 0)
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("[cluster] could not stat the data directory: %m")));
	return (uint64) st.st_ino;
}

static uint64
read_system_identifier(void)
{
	bool		crc_ok;
	ControlFileData *control;
	uint64		result;

	control = get_controlfile(".", &crc_ok);
	if (!crc_ok)
		ereport(FATAL,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("[cluster] checksum of the control file is wrong")));
	result = control->system_identifier;
	pfree(control);
	return result;
}

/* The file that an identity was written to. */
typedef struct IdentityFile
{
	uint64		inode;
	uint64		born;
} IdentityFile;

static bool
parse_identity(const char *text, QdbIdentity *id, IdentityFile *file)
{
	int			format;
	char		form[256];

	memset(id, 0, sizeof(*id));
	snprintf(form, sizeof(form),
			 "format=%%d\ncluster=%%%ds\nname=%%%d[^\n]\nmember=%%lu\nsystem=%%lu\ninode=%%lu\n"
			 "incarnation=%%lu\nboot=%%lu\nfile=%%lu\nborn=%%lu\n",
			 QDB_CLUSTER_ID_SIZE - 1, QDB_NAME_SIZE - 1);
	return sscanf(text, form, &format, id->cluster_id, id->name, &id->member,
				  &id->system_identifier, &id->inode, &id->incarnation, &id->boot,
				  &file->inode, &file->born) == 10 &&
		format == IDENTITY_FORMAT && id->member != 0;
}

/* Is the file still the one that was written here? */
static bool
is_original(const char *path, const IdentityFile *file)
{
	IdentityFile now;

	if (!read_birth(AT_FDCWD, path, &now.inode, &now.born))
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("[cluster] could not stat file \"%s\": %m", path)));
	return now.inode == file->inode && (now.born == file->born || now.born == 0 || file->born == 0);
}

static bool
exists(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

/*
 * A label that a base backup has left.  A running server has none, and those that
 * a clone or a rewind puts into place are known by their method.
 */
static bool
has_foreign_label(void)
{
	char		buf[LABEL_SIZE + 1];
	int			fd = open(BACKUP_LABEL_FILE, O_RDONLY | PG_BINARY);
	ssize_t		n;

	if (fd < 0 && errno == ENOENT)
		return false;
	n = fd < 0 ? -1 : read(fd, buf, LABEL_SIZE);
	if (n < 0)
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("[cluster] could not read file \"%s\": %m", BACKUP_LABEL_FILE)));
	close(fd);
	buf[n] = '\0';
	return strstr(buf, OUR_LABEL) == NULL;
}

/*
 * Keys of a member that this server is not.  Nobody needs them here, and who finds the copy could
 * stream with one, or with the authority's make up members.
 */
static void
remove_keys(const char *folder)
{
	static const char *const names[] = {"ca.key", "node.pem"};

	for (int i = 0; i < lengthof(names); i++)
	{
		char		path[MAXPGPATH];

		snprintf(path, sizeof(path), "%s/keys/%s", folder, names[i]);
		if (unlink(path) != 0 && errno != ENOENT)
			ereport(WARNING,
					(errcode_for_file_access(),
					 errmsg("[cluster] could not remove file \"%s\": %m", path),
					 errhint("It is the key of another server: remove it.")));
	}
}

static void
set_aside(const char *reason, const char *hint)
{
	char		path[MAXPGPATH];

	for (int n = 1; n < 10000; n++)
	{
		snprintf(path, sizeof(path), "%s.stranger.%d", QDB_DIR, n);
		if (exists(path))
			continue;
		if (rename(QDB_DIR, path) != 0 || !sync_directory("."))
			ereport(FATAL,
					(errcode_for_file_access(),
					 errmsg("[cluster] could not set aside the identity of another server: %m"),
					 errhint("Move \"%s\" out of the data directory.", QDB_DIR)));
		remove_keys(path);
		ereport(LOG,
				(errmsg("[cluster] this data directory is a copy: %s", reason),
				 errdetail("\"%s\" was renamed to \"%s\", its keys were removed; this server is no member.", QDB_DIR, path),
				 errhint("%s", hint)));
		return;
	}
}

/*
 * True when recovery.signal asks for a recovery to some point in time: then this server
 * belongs to nobody, now and after it.  A backup of a member brings standby.signal,
 * with which that recovery would never end.
 */
static bool
is_restored(void)
{
	if (!exists(RECOVERY_SIGNAL_FILE))
		return false;
	if (exists(QDB_DIR))
	{
		if ((unlink(STANDBY_SIGNAL_FILE) != 0 && errno != ENOENT) || !sync_directory("."))
			ereport(FATAL,
					(errcode_for_file_access(),
					 errmsg("[cluster] could not remove file \"%s\": %m", STANDBY_SIGNAL_FILE)));
		set_aside("\"" RECOVERY_SIGNAL_FILE "\" asks for a recovery of its own",
				  "When that has ended, SELECT quantadb_init(...) makes a new cluster of it. "
				  "Its archive_command must name another archive.");
	}
	return true;
}

bool
qdb_pending_load(QdbIdentity *identity)
{
	char		buf[MAX_FILE];
	int			n = read_checked(PENDING_PATH, buf, sizeof(buf));
	IdentityFile file;

	if (n == 0 || exists(RECOVERY_SIGNAL_FILE))
		return false;
	/* A copy of this directory joins nothing (I16). */
	return n > 0 && parse_identity(buf, identity, &file) &&
		identity->inode == data_directory_inode() && is_original(PENDING_PATH, &file);
}

bool
qdb_pending_remove(void)
{
	return (unlink(PENDING_PATH) == 0 || errno == ENOENT) && sync_directory(QDB_DIR);
}

bool
qdb_removed_store(const QdbIdentity *identity)
{
	char		text[MAX_FILE];

	snprintf(text, sizeof(text), "format=1\nmember=" UINT64_FORMAT "\nincarnation=" UINT64_FORMAT "\n",
			 identity->member, identity->incarnation);
	return write_checked(REMOVED_PATH, text);
}

/* The mark of an earlier life of this directory says nothing about this one. */
bool
qdb_removed_load(const QdbIdentity *identity)
{
	char		buf[MAX_FILE];
	uint64		member;
	uint64		incarnation;

	return read_checked(REMOVED_PATH, buf, sizeof(buf)) > 0 &&
		sscanf(buf, "format=1\nmember=%lu\nincarnation=%lu\n", &member, &incarnation) == 2 &&
		member == identity->member && incarnation == identity->incarnation;
}

/* The data has come: the pending identity is this directory's from now on. */
static bool
take_pending(void)
{
	QdbIdentity identity;

	if (!qdb_pending_load(&identity) || identity.system_identifier != read_system_identifier())
		return false;
	if (rename(PENDING_PATH, IDENTITY_PATH) != 0 || !sync_directory(QDB_DIR))
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("[cluster] could not rename \"%s\" to \"%s\": %m", PENDING_PATH, IDENTITY_PATH)));
	return true;
}

bool
qdb_identity_load(QdbIdentity *identity)
{
	char		buf[MAX_FILE];
	IdentityFile file;
	const char *strange = NULL;
	int			format;
	int			n;

	if (is_restored())
		return false;
	n = read_checked(IDENTITY_PATH, buf, sizeof(buf));
	if (n == 0 && take_pending())
		n = read_checked(IDENTITY_PATH, buf, sizeof(buf));
	if (n == 0)
		return false;

	/*
	 * Neither is a stranger: one could be promoted by hand and written to
	 * (I15).
	 */
	if (n > 0 && sscanf(buf, "format=%d\n", &format) == 1 && format != IDENTITY_FORMAT)
		ereport(FATAL,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("[cluster] file \"%s\" has format %d, this version of quantadb reads format %d",
						IDENTITY_PATH, format, IDENTITY_FORMAT),
				 errhint("Install the version of quantadb that this member ran with, or a later one that can read it.")));
	if (n < 0 || !parse_identity(buf, identity, &file))
		ereport(FATAL,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("[cluster] file \"%s\" is damaged", IDENTITY_PATH),
				 errhint("To join again as a new node, move \"%s\" out of the data directory.", QDB_DIR)));
	if (identity->inode != data_directory_inode())
		strange = "its identity names another directory";
	else if (identity->system_identifier != read_system_identifier())
		strange = "its identity names another system identifier";
	else if (!is_original(IDENTITY_PATH, &file))
		strange = "its identity was put back from a copy";
	else if (has_foreign_label())
		strange = "\"" BACKUP_LABEL_FILE "\" says that it was restored from a backup";
	if (strange != NULL)
		set_aside(strange, "SELECT quantadb_join(...) makes it one.");
	return strange == NULL;
}

static bool
store_identity(const char *path, const QdbIdentity *id)
{
	char		text[MAX_FILE];
	char		temp[MAXPGPATH];
	int			fd = open_temp(path, temp);
	IdentityFile file = {0};
	int			n = 0;

	if (fd >= 0 && read_birth(fd, "", &file.inode, &file.born))
		n = snprintf(text, sizeof(text),
					 "format=%d\ncluster=%s\nname=%s\nmember=" UINT64_FORMAT "\nsystem=" UINT64_FORMAT
					 "\ninode=" UINT64_FORMAT "\nincarnation=" UINT64_FORMAT "\nboot=" UINT64_FORMAT
					 "\nfile=" UINT64_FORMAT "\nborn=" UINT64_FORMAT "\n",
					 IDENTITY_FORMAT, id->cluster_id, id->name, id->member, id->system_identifier,
					 id->inode != 0 ? id->inode : data_directory_inode(), id->incarnation, id->boot,
					 file.inode, file.born);
	if (n <= 0 || n >= sizeof(text) - CRC_LINE)
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("[cluster] could not write file \"%s\": %m", path)));
		if (fd >= 0)
			close(fd);
		return false;
	}
	n += snprintf(text + n, sizeof(text) - n, "crc=%08x\n", (unsigned int) qdb_crc32c(0, text, n));
	return finish_file(path, temp, fd, text, n);
}

bool
qdb_pending_store(const QdbIdentity *id)
{
	return store_identity(PENDING_PATH, id);
}

void
qdb_identity_store(const QdbIdentity *id)
{
	if (!store_identity(IDENTITY_PATH, id))
		ereport(ERROR,
				(errcode(ERRCODE_IO_ERROR),
				 errmsg("could not store this node's identity"),
				 errhint("Check space and permissions of \"%s\" in the data directory.", QDB_DIR)));
}

uint64
qdb_promise_load(void)
{
	char		buf[MAX_FILE];
	uint64		epoch = 0;
	int			n = read_checked(PROMISE_PATH, buf, sizeof(buf));

	if (n == 0)
		return 0;
	if (n < 0 || sscanf(buf, "format=1\nepoch=%lu\n", &epoch) != 1)
		ereport(FATAL,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("[cluster] file \"%s\" is damaged", PROMISE_PATH),
				 errhint("This node has lost its promise and must not vote: remove \"%s\" and join it again.",
						 QDB_DIR)));
	return epoch;
}

bool
qdb_promise_store(uint64 epoch)
{
	char		text[64];

	if (epoch < qdb_promise_load()) /* I2 */
	{
		ereport(LOG,
				(errmsg("[cluster] refused to take a promise back to epoch " UINT64_FORMAT, epoch)));
		return false;
	}
	snprintf(text, sizeof(text), "format=1\nepoch=" UINT64_FORMAT "\n", epoch);
	return write_checked(PROMISE_PATH, text);
}

uint32
qdb_rewinds_load(uint64 epoch)
{
	char		buf[MAX_FILE];
	uint64		of = 0;
	uint32		n = 0;

	/* A damaged one bounds nothing, and forbids nothing either. */
	if (read_checked(REWINDS_PATH, buf, sizeof(buf)) <= 0 ||
		sscanf(buf, "format=1\nepoch=%lu\nrewinds=%u\n", &of, &n) != 2 || of != epoch)
		return 0;
	return n;
}

bool
qdb_rewinds_store(uint64 epoch, uint32 n)
{
	char		text[64];

	snprintf(text, sizeof(text), "format=1\nepoch=" UINT64_FORMAT "\nrewinds=%u\n", epoch, n);
	return write_checked(REWINDS_PATH, text);
}
