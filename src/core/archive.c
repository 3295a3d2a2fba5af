/*-------------------------------------------------------------------------
 *
 * archive.c
 *		What may go into the cluster's WAL archive; see archive.h.
 *
 *-------------------------------------------------------------------------
 */
#include "core/archive.h"

#include <string.h>

#include "core/failover.h"
#include "core/steps.h"

#define HEX_DIGITS		"0123456789ABCDEF"
#define LOG_SIZE		UINT64_C(0x100000000)

/* Eight digits; false: others. */
static bool
parse_hex(const char *text, uint64_t *value)
{
	*value = 0;
	if (strspn(text, HEX_DIGITS) < 8)
		return false;
	for (int i = 0; i < 8; i++)
		*value = *value * 16 + (uint64_t) (strchr(HEX_DIGITS, text[i]) - HEX_DIGITS);
	return true;
}

bool
qdb_archive_file_parse(const char *name, uint64_t segment_size, QdbArchiveFile *file)
{
	uint64_t	timeline;
	uint64_t	log;
	uint64_t	number;
	const char *rest = name + 24;

	memset(file, 0, sizeof(*file));
	if (!parse_hex(name, &timeline) || timeline == 0)
		return false;
	file->timeline = (uint32_t) timeline;
	if (strcmp(name + 8, ".history") == 0)
	{
		file->kind = QDB_ARCHIVE_HISTORY;
		return true;
	}
	if (!parse_hex(name + 8, &log) || !parse_hex(name + 16, &number) ||
		number >= LOG_SIZE / segment_size)
		return false;
	file->begin = log * LOG_SIZE + number * segment_size;
	file->end = file->begin + segment_size;
	if (*rest == '\0')
		file->kind = QDB_ARCHIVE_SEGMENT;
	else if (strcmp(rest, ".partial") == 0)
		file->kind = QDB_ARCHIVE_PARTIAL;
	else if (*rest == '.' && strspn(rest + 1, HEX_DIGITS) == 8 && strcmp(rest + 9, ".backup") == 0)
		file->kind = QDB_ARCHIVE_LABEL;
	else
		return false;
	return true;
}

bool
qdb_archive_asks_history(const QdbState *state, const QdbArchiveFile *file)
{
	return state->ngrants == QDB_MAX_GRANTS && file->timeline < state->grants[0].timeline;
}

QdbArchiveVerdict
qdb_judge_archive(const QdbState *state, const QdbArchiveView *view, const QdbArchiveFile *file)
{
	const QdbGrant *grant = qdb_current_grant(state);
	uint64_t	limit;

	if (view->open_epoch == 0 || grant == NULL || grant->epoch != view->open_epoch)
		return QDB_ARCHIVE_WAIT;
	if (qdb_archive_asks_history(state, file))
		limit = file->history_end;
	/* From before there was a cluster. */
	else if (file->timeline < state->grants[0].timeline)
		return QDB_ARCHIVE_NOW;
	else if (!qdb_history_limit(state, grant, file->timeline, &limit))
		limit = 0;
	if (limit == 0)
		return QDB_ARCHIVE_NEVER;
	switch (file->kind)
	{
		case QDB_ARCHIVE_SEGMENT:
			if (file->end > limit || file->end <= view->archived)
				return QDB_ARCHIVE_NEVER;
			/* What is before the fork was counted with the epoch record. */
			if (file->timeline == grant->timeline &&
				(view->quorum_epoch != grant->epoch || file->end > view->quorum_lsn))
				return QDB_ARCHIVE_WAIT;
			return QDB_ARCHIVE_NOW;
		case QDB_ARCHIVE_PARTIAL:
			return file->begin < limit && limit < file->end ? QDB_ARCHIVE_NOW : QDB_ARCHIVE_NEVER;
		case QDB_ARCHIVE_HISTORY:
		case QDB_ARCHIVE_LABEL:
			break;
	}
	return QDB_ARCHIVE_NOW;
}

bool
qdb_archive_is_gap(const QdbState *state, uint32_t timeline, uint32_t number)
{
	const QdbGrant *grant = qdb_grant_of_timeline(state, timeline);
	const QdbGrant *other = qdb_grant_of_timeline(state, number);

	return grant != NULL && number > grant->parent_timeline && number < timeline &&
		(other == NULL || !other->opened);
}
