/*-------------------------------------------------------------------------
 *
 * xmax.c
 *		Who holds a row: single transactions and multixacts as xmax.
 *
 *-------------------------------------------------------------------------
 */
#include "tableam/internal.h"

/* The member that updated or deleted the row; invalid if all only lock it. */
TransactionId
qdb_multi_update_xid(MultiXactId multi)
{
	TransactionId xid = InvalidTransactionId;
	MultiXactMember *members;
	int			n = GetMultiXactIdMembers(multi, &members, false, false);

	for (int i = 0; i < n; i++)
		if (ISUPDATE_from_mxstatus(members[i].status))
			xid = members[i].xid;
	if (n > 0)
		pfree(members);
	return xid;
}
