/*-------------------------------------------------------------------------
 *
 * identity.c
 *		Who this data directory is, and what it has promised; both durable.
 *
 * A copied or restored data directory carries a copy of the folder too.  The
 * identity therefore names the inode of the directory it belongs to and the
 * system identifier; where they do not fit, the folder is set aside and the
 * server is a stranger (I16).
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
#define REWINDS_PATH	QDB_DIR "/rewinds"
#define PROMISE_PATH	QDB_DIR "/promise"
#define FILE_FORMAT		1
#define MAX_FILE		2048
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
write_and_sync(const char *path, const void *data, size_t len)
{
	int			fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | PG_BINARY, pg_file_create_mode);
	bool		ok;

	if (fd < 0)
		return false;
	errno = 0;
	ok = write(fd, data, len) == (ssize_t) len;
	if (!ok && errno == 0)
		errno = ENOSPC;
	ok = ok && fsync(fd) == 0;
	if (close(fd) != 0)
		ok = false;
	return ok;
}

bool
qdb_write_file(const char *path, const void *data, size_t len)
{
	char		temp[MAXPGPATH];

	snprintf(temp, sizeof(temp), "%s.tmp", path);
	if ((mkdir(QDB_DIR, pg_dir_create_mode) != 0 && errno != EEXIST) ||
		!write_and_sync(temp, data, len) ||
		rename(temp, path) != 0 ||
		!sync_directory(QDB_DIR) || !sync_directory("."))
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("[cluster] could not write file \"%s\": %m", path)));
		return false;
	}
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

static bool
parse_identity(const char *text, QdbIdentity *id)
{
	int			format;
	char		form[256];

	memset(id, 0, sizeof(*id));
	snprintf(form, sizeof(form),
			 "format=%%d\ncluster=%%%ds\nname=%%%d[^\n]\nmember=%%lu\nsystem=%%lu\ninode=%%lu\n"
			 "incarnation=%%lu\nboot=%%lu\n",
			 QDB_CLUSTER_ID_SIZE - 1, QDB_NAME_SIZE - 1);
	return sscanf(text, form, &format, id->cluster_id, id->name, &id->member,
				  &id->system_identifier, &id->inode, &id->incarnation, &id->boot) == 8 &&
		format == FILE_FORMAT && id->member != 0;
}

static void
set_aside(const char *reason)
{
	char		path[MAXPGPATH];

	for (int n = 1; n < 10000; n++)
	{
		struct stat st;

		snprintf(path, sizeof(path), "%s.stranger.%d", QDB_DIR, n);
		if (lstat(path, &st) == 0)
			continue;
		if (rename(QDB_DIR, path) != 0 || !sync_directory("."))
			ereport(FATAL,
					(errcode_for_file_access(),
					 errmsg("[cluster] could not set aside the identity of another server: %m"),
					 errhint("Move \"%s\" out of the data directory.", QDB_DIR)));
		ereport(LOG,
				(errmsg("[cluster] this data directory is a copy: %s", reason),
				 errdetail("\"%s\" was renamed to \"%s\"; this server is no member.", QDB_DIR, path),
				 errhint("SELECT quantadb_join(...) makes it one.")));
		return;
	}
}

bool
qdb_pending_load(QdbIdentity *identity)
{
	char		buf[MAX_FILE];
	int			n = read_checked(PENDING_PATH, buf, sizeof(buf));
	struct stat st;

	if (n == 0 || stat("recovery.signal", &st) == 0)
		return false;
	/* A copy of this directory joins nothing (I16). */
	return n > 0 && parse_identity(buf, identity) && identity->inode == data_directory_inode();
}

bool
qdb_pending_remove(void)
{
	return (unlink(PENDING_PATH) == 0 || errno == ENOENT) && sync_directory(QDB_DIR);
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
	int			n;
	struct stat st;

	/* A server that is restored to a point in time belongs to nobody. */
	if (stat("recovery.signal", &st) == 0)
		return false;
	n = read_checked(IDENTITY_PATH, buf, sizeof(buf));
	if (n == 0 && take_pending())
		n = read_checked(IDENTITY_PATH, buf, sizeof(buf));
	if (n == 0)
		return false;
	/* Not a stranger: one could be promoted by hand and written to (I15). */
	if (n < 0 || !parse_identity(buf, identity))
		ereport(FATAL,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("[cluster] file \"%s\" is damaged or of another version", IDENTITY_PATH),
				 errhint("To join again as a new node, move \"%s\" out of the data directory.", QDB_DIR)));
	if (identity->inode != data_directory_inode())
	{
		set_aside("its identity names another directory");
		return false;
	}
	if (identity->system_identifier != read_system_identifier())
	{
		set_aside("its identity names another system identifier");
		return false;
	}
	return true;
}

static bool
store_identity(const char *path, const QdbIdentity *id)
{
	char text[	MAX_FILE];

	snprintf(text, sizeof(text),
			 "format=%d\ncluster=%s\nname=%s\nmember=" UINT64_FORMAT "\nsystem=" UINT64_FORMAT
			 "\ninode=" UINT64_FORMAT "\nincarnation=" UINT64_FORMAT "\nboot=" UINT64_FORMAT "\n",
			 FILE_FORMAT, id->cluster_id, id->name, id->member, id->system_identifier,
			 id->inode != 0 ? id->inode : data_directory_inode(), id->incarnation, id->boot);
	return write_checked(path, text);
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
	char text[	64];

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
	char text[	64];

	snprintf(text, sizeof(text), "format=1\nepoch=" UINT64_FORMAT "\nrewinds=%u\n", epoch, n);
	return write_checked(REWINDS_PATH, text);
}
