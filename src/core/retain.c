/*-------------------------------------------------------------------------
 *
 * retain.c
 *		From where on WAL is kept for the other members.
 *
 *-------------------------------------------------------------------------
 */
#include "core/retain.h"

uint64_t
qdb_retain_needs(uint64_t needs, uint64_t redo, bool follows, uint64_t fork)
{
	if (follows)
		return redo != 0 ? redo : needs;
	if (needs == 0)
		needs = redo;
	return fork != 0 && needs > fork ? fork : needs;
}

uint64_t
qdb_retain_from(const uint64_t *needs, int n, uint64_t end, uint64_t limit)
{
	uint64_t	least = end > limit ? end - limit : 0;
	uint64_t	from = end;

	for (int i = 0; i < n; i++)
	{
		if (needs[i] < from)
			from = needs[i];
	}
	return from > least ? from : least;
}
