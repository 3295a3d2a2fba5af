/*-------------------------------------------------------------------------
 *
 * donation.c
 *		Handing WAL from a voter that cannot hold the seat to one that can.
 *
 * While an epoch is open, both under its promise: the donor's streamer serves its WAL up to
 * its report, and nothing else; the taker follows it as it would a primary, up to that
 * very position, parks its receiver, scans and reports again.  That the taker's log is a
 * prefix was checked from both reports when the DONATE was applied (I3).  No ack
 * counts for anything: nobody holds a seat.  Any step but answering the open epoch
 * ends it on either side.
 *
 * Process: coordinator.  Writes the donate fields of QdbShared.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "replication/walreceiver.h"

#include "cluster/internal.h"

static QdbDonation taken;		/* its WAL has come, or was given up */

static void
set_donor(uint64 epoch, const QdbReport *report, uint64 taker)
{
	bool		changed;

	SpinLockAcquire(&qdb_shared->mutex);
	changed = qdb_shared->donate_epoch != epoch || qdb_shared->donate_taker != taker;
	qdb_shared->donate_epoch = epoch;
	qdb_shared->donate_taker = taker;
	if (report != NULL)
	{
		qdb_shared->donate_timeline = report->last_timeline;
		qdb_shared->donate_end = report->end_lsn;
	}
	SpinLockRelease(&qdb_shared->mutex);
	if (changed)
		qdb_wake_streamer();
}

/* The donor: after its report, whose end it still has. */
void
qdb_give_donation(const QdbState *state, const QdbEndOfWal *end)
{
	const QdbDonation *donation = &state->donation;
	const QdbReport *report = qdb_report_of(state, qdb_co.self.member);

	if (donation->epoch != state->epoch || donation->donor != qdb_co.self.member || report == NULL ||
		report->boot != qdb_co.self.boot || report->end_lsn != end->end || report->last_timeline != end->timeline)
		set_donor(0, NULL, 0);
	else
		set_donor(state->epoch, report, donation->taker);
}

static bool
has_reached(const QdbState *state, const QdbReport *report)
{
	TimeLineID	timeline;
	XLogRecPtr	flushed = GetWalRcvFlushRecPtr(NULL, &timeline);

	return qdb_shared->receiver_epoch == state->epoch &&
		timeline == report->last_timeline && flushed >= report->end_lsn;
}

bool
qdb_take_donation(const QdbState *state)
{
	const QdbDonation *donation = &state->donation;
	const QdbReport *own = qdb_report_of(state, qdb_co.self.member);
	const QdbReport *report = qdb_report_of(state, donation->donor);
	const QdbMember *donor = qdb_member_by_id(state, donation->donor);

	if (donation->epoch != state->epoch || donation->taker != qdb_co.self.member ||
		own == NULL || own->boot != qdb_co.self.boot || report == NULL || donor == NULL ||
		qdb_report_compare(own, report) >= 0 || memcmp(&taken, donation, sizeof(taken)) == 0)
	{
		qdb_drop_donor();
		return false;
	}
	if (!qdb_shared->target_donor || qdb_shared->target_member != donor->id ||
		qdb_shared->target_epoch != state->epoch)
		qdb_set_target(donor, state->epoch, true);
	if (!has_reached(state, report))
		return true;
	taken = *donation;
	ereport(LOG, (errmsg("[failover] WAL up to %X/%X has come from node \"%s\"",
						 LSN_FORMAT_ARGS((XLogRecPtr) report->end_lsn), donor->name)));
	qdb_drop_donor();
	return false;
}

void
qdb_end_donation(void)
{
	set_donor(0, NULL, 0);
	qdb_drop_donor();
}
