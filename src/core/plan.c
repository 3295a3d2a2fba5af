/*-------------------------------------------------------------------------
 *
 * plan.c
 *		The journal of staged work: encoding, and what it may never touch.
 *
 * The one who applies a journal deletes and renames without asking.  What it may
 * touch is therefore decided here, on both sides: when a step is added, and
 * again when it is read back.
 *
 *-------------------------------------------------------------------------
 */
#include "core/plan.h"

#include <string.h>

static const char plan_magic[8] = {'Q', 'D', 'B', 'P', 'L', 'A', 'N', '\n'};

/* Entries of the data directory that belong to this server alone. */
static const char *const protected_names[] = {
	"quantadb", "postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf",
	"postmaster.pid", "postmaster.opts"
};

static bool
component_ok(const char *start, size_t length)
{
	if (length == 0)
		return false;
	return !(length == 1 && start[0] == '.') && !(length == 2 && start[0] == '.' && start[1] == '.');
}

/* Relative, no empty component, none that leads up. */
static bool
is_inside(const char *path)
{
	if (strlen(path) >= QDB_PLAN_PATH_SIZE)
		return false;
	for (;;)
	{
		size_t		length = strcspn(path, "/");

		if (!component_ok(path, length))
			return false;
		if (path[length] == '\0')
			return true;
		path += length + 1;
	}
}

bool
qdb_plan_is_staged(const char *path)
{
	static const char prefix[] = QDB_STAGE_DIR "/";
	static const char *const own[] = {"journal", "journal.tmp", "progress"};

	if (!is_inside(path) || strncmp(path, prefix, sizeof(prefix) - 1) != 0)
		return false;
	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
	{
		if (strcmp(path + sizeof(prefix) - 1, own[i]) == 0)
			return false;
	}
	return true;
}

bool
qdb_plan_path_ok(const char *path)
{
	size_t		length = strcspn(path, "/");

	if (!is_inside(path))
		return false;
	for (size_t i = 0; i < sizeof(protected_names) / sizeof(protected_names[0]); i++)
	{
		if (strlen(protected_names[i]) == length && memcmp(protected_names[i], path, length) == 0)
			return qdb_plan_is_staged(path);
	}
	return true;
}

/* A server without them does not get as far as to apply the rest of its journal. */
static bool
is_needed_to_boot(const char *path)
{
	return strcmp(path, "global") == 0 || strcmp(path, "global/pg_control") == 0 ||
		strcmp(path, "PG_VERSION") == 0;
}

const char *
qdb_step_problem(const QdbStep *step)
{
	if (step->kind < QDB_STEP_PUT || step->kind > QDB_STEP_SYMLINK)
		return "unknown kind of step";
	if (!qdb_plan_path_ok(step->path))
		return "a path that must not be changed";
	if (step->kind != QDB_STEP_PUT && step->kind != QDB_STEP_MKDIR &&
		(is_needed_to_boot(step->path) || is_needed_to_boot(step->other)))
		return "a boot needs it at every moment";
	switch (step->kind)
	{
		case QDB_STEP_PUT:
		case QDB_STEP_BLOCKS:
			if (!qdb_plan_is_staged(step->other) || strcmp(step->path, step->other) == 0)
				return "its file is not in the stage";
			break;
		case QDB_STEP_RENAME:
			if (!qdb_plan_path_ok(step->other) || strcmp(step->path, step->other) == 0)
				return "a path that must not be renamed";
			break;
		case QDB_STEP_SYMLINK:
			if (strncmp(step->path, "pg_tblspc/", 10) != 0 || strchr(step->path + 10, '/') != NULL ||
				step->other[0] != '/' || strlen(step->other) >= QDB_PLAN_PATH_SIZE)
				return "not a tablespace";
			break;
		default:
			if (step->other[0] != '\0')
				return "a second path";
			break;
	}
	return NULL;
}

void
qdb_step_encode(const QdbStep *step, QdbWriter *w)
{
	qdb_put_u8(w, step->kind);
	qdb_put_u64(w, step->number);
	qdb_put_string(w, step->path);
	qdb_put_string(w, step->other);
}

void
qdb_step_decode(QdbReader *r, QdbStep *step)
{
	step->kind = qdb_get_u8(r);
	step->number = qdb_get_u64(r);
	qdb_get_string(r, step->path, sizeof(step->path));
	qdb_get_string(r, step->other, sizeof(step->other));
	if (!r->failed && qdb_step_problem(step) != NULL)
		r->failed = true;
}

void
qdb_plan_header_encode(const QdbPlanHeader *header, uint8_t *buf)
{
	QdbWriter	w = {.buf = buf,.size = QDB_PLAN_HEADER_SIZE};

	qdb_put_bytes(&w, plan_magic, sizeof(plan_magic));
	qdb_put_u32(&w, QDB_PLAN_FORMAT);
	qdb_put_u32(&w, header->nsteps);
	qdb_put_u64(&w, header->length);
	qdb_put_u64(&w, header->inode);
	qdb_put_u32(&w, header->crc);
	qdb_put_u64(&w, 0);
	qdb_put_u32(&w, qdb_crc32c(0, buf, w.used));
}

bool
qdb_plan_header_decode(const uint8_t *buf, QdbPlanHeader *header)
{
	QdbReader	r = {.buf = buf,.size = QDB_PLAN_HEADER_SIZE};
	const uint8_t *magic = qdb_get_bytes(&r, sizeof(plan_magic));
	uint32_t	format = qdb_get_u32(&r);
	uint64_t	zero;

	header->nsteps = qdb_get_u32(&r);
	header->length = qdb_get_u64(&r);
	header->inode = qdb_get_u64(&r);
	header->crc = qdb_get_u32(&r);
	zero = qdb_get_u64(&r);
	return qdb_get_u32(&r) == qdb_crc32c(0, buf, QDB_PLAN_HEADER_SIZE - 4) &&
		memcmp(magic, plan_magic, sizeof(plan_magic)) == 0 &&
		format == QDB_PLAN_FORMAT && zero == 0;
}
