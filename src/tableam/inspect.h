/*-------------------------------------------------------------------------
 *
 * inspect.h
 *		What the functions that look into tables share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_TABLEAM_INSPECT_H
#define QDB_TABLEAM_INSPECT_H

#include "tableam/change.h"

extern Relation qdb_inspect_open(Oid relid);
extern bool qdb_inspect_row_is_on(Page page, ItemId lp);
extern const TableAmRoutine *qdb_table_routine(void);

#endif							/* QDB_TABLEAM_INSPECT_H */
