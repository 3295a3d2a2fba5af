/*-------------------------------------------------------------------------
 *
 * resync.c
 *		Whether a member that rewinds comes further.
 *
 *-------------------------------------------------------------------------
 */
#include "core/resync.h"

#include <string.h>

/* From 1 on; 0: not a step of a rewind. */
static int
step_number(const char *step)
{
	static const char *const steps[] = {QDB_REWIND_SCAN, QDB_REWIND_FETCH, QDB_REWIND_SYNC};

	for (int i = 0; i < (int) (sizeof(steps) / sizeof(steps[0])); i++)
		if (strcmp(step, steps[i]) == 0)
			return i + 1;
	return 0;
}

void
qdb_resync_note(QdbResyncWatch *watch, uint64_t epoch, uint64_t boot,
				const char *step, uint64_t done, int64_t now_us)
{
	int			number = step_number(step);

	if (watch->epoch != epoch)
	{
		memset(watch, 0, sizeof(*watch));
		watch->epoch = epoch;
		watch->boot = boot;
	}
	if (watch->boot != boot)
	{
		/* What was staged is applied in a crash cycle: now it has to stream. */
		if (watch->worked)
			watch->moved_us = now_us;
		watch->worked = false;
		watch->boot = boot;
	}
	if (number > watch->step || (number != 0 && number == watch->step && done > watch->done))
	{
		watch->step = number;
		watch->done = done;
		watch->worked = true;
		watch->moved_us = now_us;
	}
}
