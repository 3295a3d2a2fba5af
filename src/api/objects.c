/*-------------------------------------------------------------------------
 *
 * objects.c
 *		Large objects are read by functions, not from a table that a plan names.
 *
 * So the gate is asked again where such a function is looked up to be called,
 * by a query or as libpq's lo_read does, past the executor.  On a closed node
 * it would show what no quorum may have (I8).  A call past the executor is also
 * the only read that does not come by check_read: the lease of a strict read and
 * the postmaster are looked at here.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/parallel.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_proc.h"
#include "utils/fmgroids.h"

#include "api/hooks.h"

static object_access_hook_type prev_object_access = NULL;

static bool
reads_large_object(Oid function)
{
	return function == F_LO_GET_OID || function == F_LO_GET_OID_INT8_INT4 ||
		function == F_LO_OPEN || function == F_LOREAD || function == F_LO_EXPORT;
}

static void
object_access(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
	if (prev_object_access)
		prev_object_access(access, class_id, object_id, sub_id, arg);
	if (access == OAT_FUNCTION_EXECUTE && class_id == ProcedureRelationId &&
		reads_large_object(object_id) && !IsParallelWorker())
	{
		QdbGate		gate = qdb_check_gate();

		if (gate == QDB_GATE_INERT)
			return;
		if (gate == QDB_GATE_CLOSED)
			qdb_refuse_closed();
		qdb_check_strict(gate);
		qdb_check_postmaster();
	}
}

void
qdb_watch_objects(void)
{
	prev_object_access = object_access_hook;
	object_access_hook = object_access;
}
