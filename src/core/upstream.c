/*-------------------------------------------------------------------------
 *
 * upstream.c
 *		Choose between the holder of the seat and the upstream that is named.
 *
 * The upstream is taken once it has been fit for a moment.  Where it does not bring a
 * stream within another one, the holder is taken; an upstream that seemed fit all the time is
 * then not tried again for a while, one that went away may return at any time.
 *
 *-------------------------------------------------------------------------
 */
#include "core/upstream.h"

#include <string.h>

/* Does it stream from the holder of this epoch, as far as it says? */
static bool
is_fit(const QdbUpstreamView *view)
{
	return view->opened && view->connected &&
		view->now_us - view->heard_us < QDB_UPSTREAM_SILENT_BEATS * view->beat_us &&
		!view->wants_upstream && view->streaming && view->promised == view->epoch;
}

static bool
brings_wal(const QdbUpstreamView *view)
{
	return view->receiver_epoch == view->epoch && view->receiver_member == view->named;
}

/* It is not the target; may it become that now? */
static bool
may_choose(QdbUpstream *upstream, const QdbUpstreamView *view)
{
	if (!is_fit(view) || view->now_us < upstream->avoid_until_us)
		upstream->fit_since_us = 0;
	else if (upstream->fit_since_us == 0)
		upstream->fit_since_us = view->now_us;
	return upstream->fit_since_us != 0 &&
		view->now_us - upstream->fit_since_us >= QDB_UPSTREAM_SETTLE_US;
}

static const char *
leave(QdbUpstream *upstream, const QdbUpstreamView *view)
{
	bool		failed = is_fit(view);

	upstream->chosen = false;
	upstream->fit_since_us = 0;
	upstream->avoid_until_us = failed ? view->now_us + QDB_UPSTREAM_AVOID_US : 0;
	return failed ? "it does not bring WAL" : "it does not stream itself";
}

uint64_t
qdb_upstream_choose(QdbUpstream *upstream, const QdbUpstreamView *view, const char **left)
{
	uint64_t	named = view->named == view->holder || view->named == view->self ? 0 : view->named;

	*left = NULL;
	if (upstream->named != named)
	{
		memset(upstream, 0, sizeof(*upstream));
		upstream->named = named;
	}
	if (upstream->epoch != view->epoch)
	{
		upstream->epoch = view->epoch;
		upstream->chosen = false;
		upstream->fit_since_us = 0;
	}
	if (named == 0)
		return view->holder;
	if (!upstream->chosen && may_choose(upstream, view))
	{
		upstream->chosen = true;
		upstream->streamed_us = view->now_us;
	}
	else if (upstream->chosen && is_fit(view) && brings_wal(view))
		upstream->streamed_us = view->now_us;
	else if (upstream->chosen && view->now_us - upstream->streamed_us > QDB_UPSTREAM_PATIENCE_US)
		*left = leave(upstream, view);
	return upstream->chosen ? named : view->holder;
}

bool
qdb_receiver_is_elsewhere(uint64_t receiver_epoch, uint64_t receiver_member,
						  uint64_t target_epoch, uint64_t target_member)
{
	return receiver_epoch != 0 && target_epoch != 0 && receiver_member != target_member;
}

bool
qdb_may_relay(const QdbGrant *grant, uint64_t followed_epoch, uint64_t target_epoch, uint64_t target_member)
{
	return followed_epoch != 0 && grant != NULL && grant->epoch == followed_epoch &&
		target_epoch == followed_epoch && target_member == grant->holder;
}

bool
qdb_relay_serves(uint64_t epoch, uint64_t asked_epoch, const QdbMember *member)
{
	return asked_epoch == epoch && member != NULL && member->role == QDB_ROLE_REPLICA;
}
