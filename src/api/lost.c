/* lost.c - the function behind quantadb_lost_writes; of this node only */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/timestamp.h"

#include "api/sql.h"
#include "base/lost.h"

#define NCOLUMNS	12

PG_FUNCTION_INFO_V1(qdb_sql_lost_writes);

Datum
qdb_sql_lost_writes(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	QdbLostEntry *entries;
	int			n;

	qdb_require_loaded();
	InitMaterializedSRF(fcinfo, 0);
	entries = qdb_lost_list(&n);
	for (int i = 0; i < n; i++)
	{
		const QdbLostEntry *entry = &entries[i];
		Datum		values[NCOLUMNS];
		bool		nulls[NCOLUMNS] = {false};

		values[0] = Int64GetDatum(entry->number);
		values[1] = TimestampTzGetDatum(entry->time_us - (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY);
		values[2] = Int64GetDatum(entry->epoch);
		values[3] = Int32GetDatum(entry->timeline);
		values[4] = LSNGetDatum(entry->start);
		values[5] = LSNGetDatum(entry->end);
		values[6] = Int64GetDatum(entry->transactions);
		values[7] = TimestampTzGetDatum(entry->first_commit);
		values[8] = TimestampTzGetDatum(entry->last_commit);
		nulls[7] = nulls[8] = entry->transactions == 0;
		values[9] = qdb_text_datum(entry->relations);
		values[10] = Int64GetDatum(entry->saved_bytes);
		values[11] = CStringGetTextDatum(psprintf("%s/" UINT64_FORMAT, QDB_LOST_DIR, entry->number));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
