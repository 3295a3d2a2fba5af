/*-------------------------------------------------------------------------
 *
 * rehearse.c
 *		quantadb_rehearse(node): one row, what a failover to it would cost now.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"

#include "api/sql.h"

PG_FUNCTION_INFO_V1(qdb_sql_rehearse);

#define NCOLUMNS	9

static void
put_known(Datum *values, bool *nulls, int i, int64 value)
{
	values[i] = Int64GetDatum(value);
	nulls[i] = value < 0;
}

static void
put_text(Datum *values, bool *nulls, int i, const char *text)
{
	nulls[i] = text == NULL || text[0] == '\0';

	if (!nulls[i])
		values[i] = qdb_text_datum(text);
}

Datum
qdb_sql_rehearse(PG_FUNCTION_ARGS)
{
	char	   *name = qdb_utf8_argument(PG_GETARG_TEXT_PP(0));
	Datum		values[NCOLUMNS] = {0};
	bool		nulls[NCOLUMNS] = {0};
	TupleDesc	desc;
	QdbStatus  *status;
	QdbRehearsal rehearsal;
	const QdbMember *chosen;

	qdb_require_member();
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	status = qdb_collect_status();
	if (!qdb_rehearse_now(status, name, &rehearsal))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("there is no node \"%s\"", name),
				 errdetail("No member of the cluster has that name."),
				 errhint("The members are listed in the view quantadb_nodes.")));
	chosen = qdb_member_by_id(status->state, rehearsal.chosen);
	put_text(values, nulls, 0, name);
	put_text(values, nulls, 1, chosen != NULL ? chosen->name : NULL);
	put_text(values, nulls, 2, rehearsal.why_not);
	put_known(values, nulls, 3, rehearsal.bytes_behind);
	put_known(values, nulls, 4, rehearsal.replay_lag_us < 0 ? -1 : rehearsal.replay_lag_us / 1000);
	put_known(values, nulls, 5, rehearsal.failover_us < 0 ? -1 : rehearsal.failover_us / 1000);
	put_known(values, nulls, 6, rehearsal.switchover_us < 0 ? -1 : rehearsal.switchover_us / 1000);
	put_known(values, nulls, 7, status->state->last_outage_us > 0 ? status->state->last_outage_us / 1000 : -1);
	put_known(values, nulls, 8, rehearsal.loss_bytes);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
