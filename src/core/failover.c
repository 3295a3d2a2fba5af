/*-------------------------------------------------------------------------
 *
 * failover.c
 *		The table from what the Raft leader sees to what it does next.
 *
 * The rules are asked in the order of the table and the first that decides
 * wins.  Nothing is remembered between two calls: an action is repeated until
 * its effect shows in the state, and a repeated command is refused or changes
 * nothing.  A wrong decision can cost time but no commit: what may be applied
 * is checked in state.c.
 *
 * Rules above the row "new leader" act on what is certain (replicated facts, a
 * death, a restart); those below need a leader that has listened for a while.
 *
 *		epoch open
 *		  | reports of a majority, its maximum is fit          -> SEAT
 *		  | the maximum is not fit, another is a prefix of it  -> DONATE
 *		  | a majority's maximum without the unfit one is fit  -> SEAT
 *		  | open_timeout                                       -> next epoch
 *		seated
 *		  | released, restarted or dead                        -> next epoch
 *		  | asked for another, and the holder does not answer  -> next epoch
 *		  | silent, but heard by another voter                 -> that one leads
 *		  | silent, heard by nobody of a majority              -> next epoch
 *		  | gate open: holder counts by the new membership     -> close the change
 *		  | gate not open within open_timeout, which begins
 *		  | anew while a rewind that it takes gets on          -> next epoch
 *		  | gate open: move Raft leadership, learner to voter
 *
 *-------------------------------------------------------------------------
 */
#include "core/failover.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/rules.h"

#define WAIT_FOR_REPORTS_US		100000
#define TRANSFER_AFTER_US		500000
#define WAIT_FOR_WANTED_MS		1000
#define MOVE_US					10000000	/* then the holder has had its
											 * time */
#define FORCE_US				3000000
#define MAX_DOUBLINGS			6	/* of open_timeout */

/* What the rules look at: the arguments, and the seat looked up once. */
typedef struct Scene
{
	const QdbState *state;
	const QdbLeaderView *view;
	const QdbGrant *grant;		/* the seat; NULL while the epoch is open */
	const QdbPeerView *holder;	/* who holds it, or held it last; or NULL */
	bool		pass_failed;	/* eligible: not who failed to open last */
} Scene;

static const QdbPeerView *
find_peer(const QdbLeaderView *view, uint64_t member)
{
	for (size_t i = 0; i < view->npeers && i < QDB_MAX_MEMBERS; i++)
		if (view->peers[i].member == member)
			return &view->peers[i];
	return NULL;
}

static const char *
name_of(const Scene *scene, uint64_t member)
{
	const QdbMember *m = qdb_member_by_id(scene->state, member);

	return m == NULL ? "?" : m->name;
}

static bool
is_connected(const Scene *scene, uint64_t member)
{
	const QdbPeerView *peer = find_peer(scene->view, member);

	return member == scene->view->self || (peer != NULL && peer->connected);
}

/* Has *ms passed since a time of our clock? */
static bool
has_passed(const Scene *scene, int64_t since_us, uint32_t ms)
{
	return scene->view->now_us - since_us >= (int64_t) ms * 1000;
}

/* All that are connected, this node included; majorities pick the voters. */
static size_t
list_connected(const Scene *scene, uint64_t *ids)
{
	size_t		n = 0;

	for (size_t i = 0; i < scene->view->npeers && i < QDB_MAX_MEMBERS; i++)
		if (is_connected(scene, scene->view->peers[i].member))
			ids[n++] = scene->view->peers[i].member;
	return n;
}

static void set_reason(QdbAction *action, const char *format,...) __attribute__((format(printf, 2, 3)));

static void
set_reason(QdbAction *action, const char *format,...)
{
	va_list		args;

	va_start(args, format);
	vsnprintf(action->reason, sizeof(action->reason), format, args);
	va_end(args);
}

/*
 * Under async, how much the last holder was ahead of a position when it was
 * last heard; what it wrote after that nobody knows.
 */
static uint64_t
lag_behind_holder(const Scene *scene, uint64_t lsn)
{
	if (scene->holder == NULL || scene->holder->wal_end == 0)
		return UINT64_MAX;		/* never heard: nobody can say */
	return scene->holder->wal_end > lsn ? scene->holder->wal_end - lsn : 0;
}

/* The nearest of those that could win now. */
static uint64_t
least_lag(const Scene *scene)
{
	uint64_t	least = UINT64_MAX;

	for (size_t i = 0; i < scene->view->npeers && i < QDB_MAX_MEMBERS; i++)
	{
		const QdbPeerView *peer = &scene->view->peers[i];
		const QdbMember *m = qdb_member_by_id(scene->state, peer->member);
		uint64_t	lag = lag_behind_holder(scene, peer->wal_end);

		if (m != NULL && m->role == QDB_ROLE_VOTER && m->priority > 0 && peer->connected &&
			(scene->holder == NULL || peer->member != scene->holder->member || !peer->gone) && lag < least)
			least = lag;
	}
	return least;
}

/*
 * Does async hold an automatic failover back?  What was asked for, or handed over by
 * the holder itself, is not automatic.
 */
static bool
loses_too_much(const Scene *scene, uint64_t lag)
{
	const QdbState *state = scene->state;

	return qdb_is_async(state) && !state->seat_released && state->move.target == 0 &&
		lag > state->settings.max_lag_bytes;
}

/*
 * A paused cluster opens an epoch only to give the seat back to its last
 * holder, once that one is here, or to whom it was asked for.
 */
static bool
open_epoch(const Scene *scene, QdbAction *action)
{
	const QdbPeerView *holder = scene->holder;
	bool		back = holder != NULL && is_connected(scene, holder->member) && !holder->gone &&
	(holder->member == scene->view->self ||
	 (holder->heard_us != 0 &&
	  !has_passed(scene, holder->heard_us, scene->state->settings.failover_ms)));

	if (!scene->state->settings.auto_failover && !back && scene->state->move.target == 0)
	{
		action->reason[0] = '\0';
		return true;
	}
	if (scene->grant != NULL && !back && loses_too_much(scene, least_lag(scene)))
	{
		/* Better no primary than one that has lost more than was agreed. */
		action->held_back = least_lag(scene);
		return true;
	}
	action->kind = QDB_ACT_OPEN_EPOCH;
	action->epoch = scene->state->epoch + 1;
	action->member = holder == NULL ? 0 : holder->member;
	return true;
}

/* It had the seat before this epoch, in this boot, and did not open. */
static bool
failed_to_open(const Scene *scene, const QdbReport *report)
{
	const QdbState *state = scene->state;
	const QdbGrant *last = state->ngrants > 0 ? &state->grants[state->ngrants - 1] : NULL;

	return last != NULL && !last->opened && !state->seat_released &&
		last->holder == report->member && last->boot == report->boot;
}

/* May it take the seat now?  In the boot that reported, or it must report again. */
static bool
is_eligible(uint64_t member, void *arg)
{
	const Scene *scene = arg;
	const QdbPeerView *peer = find_peer(scene->view, member);
	const QdbReport *report = qdb_report_of(scene->state, member);

	return peer != NULL && report != NULL && peer->able && is_connected(scene, member) &&
		peer->boot == report->boot && !(scene->pass_failed && failed_to_open(scene, report));
}

/* Does a connected voter still owe its report? */
static bool
is_report_due(const Scene *scene)
{
	for (uint32_t i = 0; i < scene->state->nmembers; i++)
	{
		const QdbMember *m = &scene->state->members[i];

		if (m->role == QDB_ROLE_VOTER && is_connected(scene, m->id) &&
			qdb_report_of(scene->state, m->id) == NULL)
			return true;
	}
	return false;
}

static void add_reason(QdbAction *action, const char *format,...) __attribute__((format(printf, 2, 3)));

static void
add_reason(QdbAction *action, const char *format,...)
{
	size_t		used = strlen(action->reason);
	va_list		args;

	va_start(args, format);
	vsnprintf(action->reason + used, sizeof(action->reason) - used, format, args);
	va_end(args);
}

/* What async may have lost, in numbers: the holder went on after it was last heard. */
static void
tell_async_loss(const Scene *scene, QdbAction *action)
{
	uint64_t	lag = lag_behind_holder(scene, action->grant.fork);

	if (!qdb_is_async(scene->state) || scene->state->seat_released ||
		(scene->holder != NULL && scene->holder->member == action->member))
		return;
	if (lag == UINT64_MAX)
		add_reason(action, "; durability is async and the last primary was never heard: what is lost is unknown");
	else
		add_reason(action, "; durability is async: %llu bytes that %s had may be lost, and what it wrote in the %lld ms since",
				   (unsigned long long) lag, name_of(scene, scene->holder->member),
				   (long long) ((scene->view->now_us - scene->holder->heard_us) / 1000));
}

/* "n2 was chosen: ...", and who has as much but cannot; the rest is said by the state. */
static void
explain_seat(const Scene *scene, QdbAction *action)
{
	const QdbState *state = scene->state;
	char		loss[QDB_REASON_SIZE];

	set_reason(action, "%s was chosen: ", name_of(scene, action->member));
	qdb_tell_loss(state, &action->grant, loss, sizeof(loss));
	if (qdb_is_forced(state, action->member))
		add_reason(action, "it was asked for with force; %s", loss[0] != '\0' ? loss : "nothing is given up");
	else
		add_reason(action, "%s, up to %X/%X", state->move.target == action->member ?
				   "it was asked for and has as much WAL as any" :
				   "its WAL is the most of a majority",
				   (unsigned) (action->grant.fork >> 32), (unsigned) action->grant.fork);
	tell_async_loss(scene, action);
	for (uint32_t i = 0; i < state->nreports; i++)
	{
		const QdbPeerView *peer = find_peer(scene->view, state->reports[i].member);

		if (peer != NULL && !peer->able && peer->member != action->member &&
			peer->why_not != NULL && peer->why_not[0] != '\0')
			add_reason(action, "; %s cannot: %s", name_of(scene, peer->member), peer->why_not);
	}
}

/* The greatest report; NULL without any. */
static const QdbReport *
find_greatest(const QdbState *state)
{
	const QdbReport *greatest = NULL;

	for (uint32_t i = 0; i < state->nreports; i++)
		if (greatest == NULL || qdb_report_compare(&state->reports[i], greatest) > 0)
			greatest = &state->reports[i];
	return greatest;
}

/* Can it hand its WAL over: here, in the boot that reported? */
static bool
can_donate(const Scene *scene, const QdbReport *report)
{
	const QdbPeerView *peer = find_peer(scene->view, report->member);

	return peer != NULL && is_connected(scene, report->member) && peer->boot == report->boot;
}

/*
 * Who has the most WAL cannot take the seat: the best of those that can, and whose log
 * is a prefix of it, shall have that WAL.  False: that does not help (any more).
 */
static bool
donate(const Scene *scene, QdbAction *action)
{
	const QdbState *state = scene->state;
	const QdbReport *donor = find_greatest(state);
	const QdbReport *taker = NULL;

	if (donor == NULL || !can_donate(scene, donor) ||
		has_passed(scene, scene->view->epoch_seen_us, state->settings.open_ms / 2))
		return false;
	for (uint32_t i = 0; i < state->nreports; i++)
	{
		const QdbReport *r = &state->reports[i];

		if (r->member != donor->member && qdb_may_hold_seat(state, r->member) &&
			is_eligible(r->member, (void *) scene) && qdb_report_is_prefix(state, r, donor) &&
			(taker == NULL || qdb_report_compare(r, taker) > 0))
			taker = r;
	}
	if (taker == NULL || qdb_report_compare(taker, donor) == 0)
		return false;
	if (state->donation.epoch == state->epoch && state->donation.donor == donor->member &&
		state->donation.taker == taker->member)
		return true;			/* under way: it reports again */
	action->kind = QDB_ACT_DONATE;
	action->member = taker->member;
	action->donor = donor->member;
	action->epoch = state->epoch;
	set_reason(action, "%s takes the WAL that it lacks from %s, which cannot be primary",
			   name_of(scene, taker->member), name_of(scene, donor->member));
	return true;
}

static bool
rule_not_initialized(Scene *scene, QdbAction *action)
{
	return scene->state->cluster_id[0] == '\0';
}

/*
 * The member that was asked for gets a moment to report, if it may take the seat; so
 * short a moment that the epoch has time left for another one.
 */
static bool
waits_for_wanted(const Scene *scene)
{
	uint64_t	wanted = scene->state->move.target;
	uint32_t	half_ms = scene->state->settings.open_ms / 2;

	return wanted != 0 && qdb_may_hold_seat(scene->state, wanted) && is_connected(scene, wanted) &&
		qdb_report_of(scene->state, wanted) == NULL &&
		!has_passed(scene, scene->view->epoch_seen_us, half_ms < WAIT_FOR_WANTED_MS ? half_ms : WAIT_FOR_WANTED_MS);
}

/*
 * Who failed to open its last seat stands back: another takes its WAL, or has as
 * much.  Where nobody can, it gets its next chance.
 */
static bool
rule_seat(Scene *scene, QdbAction *action)
{
	const QdbState *state = scene->state;
	const QdbLeaderView *view = scene->view;
	const QdbReport *greatest = find_greatest(state);
	char		why[QDB_REASON_SIZE];
	bool		found;

	if (scene->grant != NULL || waits_for_wanted(scene))
		return false;
	scene->pass_failed = true;
	found = qdb_choose_seat(state, is_eligible, scene, &action->grant, why, sizeof(why));
	if (greatest != NULL && (!found || (!qdb_is_forced(state, action->grant.holder) &&
										qdb_report_compare(qdb_report_of(state, action->grant.holder), greatest) < 0)))
	{
		uint64_t	ids[QDB_MAX_MEMBERS];

		for (uint32_t i = 0; i < state->nreports; i++)
			ids[i] = state->reports[i].member;
		if (qdb_is_majority(state, ids, state->nreports) && donate(scene, action))
			return true;
	}
	scene->pass_failed = false;
	if (!found && !qdb_choose_seat(state, is_eligible, scene, &action->grant, why, sizeof(why)))
		return false;

	if (loses_too_much(scene, lag_behind_holder(scene, action->grant.fork)))
	{
		action->held_back = lag_behind_holder(scene, action->grant.fork);
		memset(&action->grant, 0, sizeof(action->grant));
		return false;
	}

	/* A report more may name a node with more WAL: worth a moment. */
	if (is_report_due(scene) && view->reports_seen_us != 0 &&
		view->now_us - view->reports_seen_us < WAIT_FOR_REPORTS_US)
		return true;
	action->kind = QDB_ACT_SEAT;
	action->member = action->grant.holder;
	action->epoch = action->grant.epoch;
	explain_seat(scene, action);
	return true;
}

static bool
rule_released(Scene *scene, QdbAction *action)
{
	if (scene->grant == NULL || !scene->state->seat_released)
		return false;
	set_reason(action, "%s gave the seat up", name_of(scene, scene->grant->holder));
	return open_epoch(scene, action);
}

/* I1: the new boot must not go on with the timeline of the old one. */
static bool
rule_restarted(Scene *scene, QdbAction *action)
{
	if (scene->grant == NULL || scene->holder == NULL || scene->holder->heard_us == 0 ||
		scene->holder->boot == 0 || scene->holder->boot == scene->grant->boot)
		return false;
	set_reason(action, "%s restarted", name_of(scene, scene->grant->holder));
	return open_epoch(scene, action);
}

static bool
rule_gone(Scene *scene, QdbAction *action)
{
	if (scene->grant == NULL || scene->holder == NULL || !scene->holder->gone)
		return false;
	set_reason(action, "the server of %s has died", name_of(scene, scene->grant->holder));
	return open_epoch(scene, action);
}

/* Is the holder here, in the boot that has the seat? */
static bool
holder_answers(const Scene *scene)
{
	const QdbPeerView *holder = scene->holder;

	if (scene->grant->holder == scene->view->self)
		return holder == NULL || holder->boot == scene->grant->boot;
	return holder != NULL && holder->connected && !holder->gone &&
		holder->boot == scene->grant->boot && holder->heard_us != 0 &&
		!has_passed(scene, holder->heard_us, scene->state->settings.failover_ms);
}

/*
 * A holder that lives gives its seat up by itself once the target has its WAL.
 * It says so where that fails; if it does neither, force does not wait longer.
 */
static bool
rule_moved(Scene *scene, QdbAction *action)
{
	const QdbMove *move = &scene->state->move;
	int64_t		age = scene->view->now_us - scene->view->move_seen_us;
	uint64_t	ids[QDB_MAX_MEMBERS];

	if (scene->grant == NULL || move->target == 0)
		return false;
	if (move->target == scene->grant->holder && scene->grant->opened)
	{
		action->kind = QDB_ACT_GIVE_UP_MOVE;
		set_reason(action, "it is the primary already");
		return true;
	}
	if (holder_answers(scene) && !(move->force && age > FORCE_US))
	{
		if (age < MOVE_US)
			return false;
		action->kind = QDB_ACT_GIVE_UP_MOVE;
		set_reason(action, "%s did not hand its seat over in time", name_of(scene, scene->grant->holder));
		return true;
	}
	if (!qdb_is_majority(scene->state, ids, list_connected(scene, ids)))
		return true;
	set_reason(action, move->force ? "%s is promoted by force, %s did not hand its seat over" :
			   "the promotion of %s was asked for, and %s does not answer",
			   name_of(scene, move->target), name_of(scene, scene->grant->holder));
	return open_epoch(scene, action);
}

/* The last holder's death is certain: an open epoch need not wait either. */
static bool
rule_new_leader(Scene *scene, QdbAction *action)
{
	return !has_passed(scene, scene->view->leader_since_us, scene->state->settings.failover_ms) &&
		!(scene->holder != NULL && scene->holder->gone);
}

static bool
rule_no_seat(Scene *scene, QdbAction *action)
{
	if (scene->grant != NULL)
		return false;
	if (!has_passed(scene, scene->view->epoch_seen_us, scene->state->settings.open_ms))
		return true;
	set_reason(action, "epoch %llu found no primary in time",
			   (unsigned long long) scene->state->epoch);
	return open_epoch(scene, action);
}

/* Somebody who hears the primary decides better than we do. */
static const QdbPeerView *
find_witness(const Scene *scene)
{
	for (size_t i = 0; i < scene->view->npeers && i < QDB_MAX_MEMBERS; i++)
	{
		const QdbPeerView *peer = &scene->view->peers[i];
		const QdbMember *m = qdb_member_by_id(scene->state, peer->member);

		if (m != NULL && m->role == QDB_ROLE_VOTER && peer->member != scene->view->self &&
			peer->member != scene->grant->holder && peer->connected && peer->primary_heard_us != 0 &&
			!has_passed(scene, peer->primary_heard_us, scene->state->settings.failover_ms))
			return peer;
	}
	return NULL;
}

/*
 * Did silence cause a failover just now?  The time is of the clock of who proposed it: one
 * that is still to come says nothing, and to wait for it would leave the cluster without a
 * primary for as long as that clock was wrong.
 */
static bool
suspected_lately(const Scene *scene)
{
	int64_t		age_us = scene->view->unix_us - scene->state->suspected_us;

	return scene->state->suspected_us != 0 && age_us >= 0 &&
		age_us < (int64_t) scene->state->settings.min_failover_ms * 1000;
}

static bool
rule_silent(Scene *scene, QdbAction *action)
{
	const QdbClusterSettings *settings = &scene->state->settings;
	const QdbLeaderView *view = scene->view;
	uint64_t	ids[QDB_MAX_MEMBERS];
	const QdbPeerView *witness;

	if (scene->grant->holder == view->self)
		return false;
	if (scene->holder != NULL && scene->holder->heard_us != 0 &&
		!has_passed(scene, scene->holder->heard_us, settings->failover_ms))
		return false;
	witness = find_witness(scene);
	if (witness != NULL)
	{
		action->kind = QDB_ACT_TRANSFER;
		action->member = witness->member;
		set_reason(action, "%s still hears the primary", name_of(scene, witness->member));
		return true;
	}
	if (!qdb_is_majority(scene->state, ids, list_connected(scene, ids)))
		return true;
	if (suspected_lately(scene))
		return true;
	action->suspicion = true;
	set_reason(action, "nobody of a majority has heard %s for %u ms",
			   name_of(scene, scene->grant->holder), (unsigned) settings->failover_ms);
	return open_epoch(scene, action);
}

/*
 * Where one seat after the other was not opened, what stands in the way may be the time itself (a
 * promotion has more to replay than open_timeout allows for, and its end takes the
 * server back to its last checkpoint): from the third one on each has twice as long.
 */
static uint32_t
time_to_open_ms(const QdbState *state)
{
	uint64_t	ms = state->settings.open_ms;
	uint32_t	unopened = 0;

	while (unopened < state->ngrants && !state->grants[state->ngrants - 1 - unopened].opened)
		unopened++;
	for (uint32_t i = 2; i < unopened && i < 2 + MAX_DOUBLINGS; i++)
		ms *= 2;
	return ms < UINT32_MAX ? (uint32_t) ms : UINT32_MAX;
}

/*
 * When the seat last came nearer to its opening. Where it takes a voter that rewinds to
 * open it, the next seat would take that one too, and its rewind would begin anew.
 */
static int64_t
opening_moved_us(const Scene *scene)
{
	const QdbState *state = scene->state;
	int64_t		latest = scene->view->epoch_seen_us;
	uint64_t	ids[QDB_MAX_MEMBERS];
	size_t		n = 0;

	for (uint32_t i = 0; i < state->nmembers; i++)
	{
		const QdbMember *m = &state->members[i];
		const QdbPeerView *peer = find_peer(scene->view, m->id);

		if (m->role != QDB_ROLE_VOTER || peer == NULL || !is_connected(scene, m->id))
			continue;
		if (peer->rewound_us == 0 || has_passed(scene, peer->rewound_us, state->settings.open_ms))
			ids[n++] = m->id;
		else if (peer->rewound_us > latest)
			latest = peer->rewound_us;
	}
	return qdb_is_majority(state, ids, n) ? scene->view->epoch_seen_us : latest;
}

static bool
rule_not_opened(Scene *scene, QdbAction *action)
{
	uint64_t	ids[QDB_MAX_MEMBERS];

	if (scene->grant->opened)
		return false;
	if (!has_passed(scene, opening_moved_us(scene), time_to_open_ms(scene->state)) ||
		!qdb_is_majority(scene->state, ids, list_connected(scene, ids)))
		return true;
	set_reason(action, "%s did not open in time", name_of(scene, scene->grant->holder));
	return open_epoch(scene, action);
}

static bool
rule_close_change(Scene *scene, QdbAction *action)
{
	const QdbState *state = scene->state;

	/* While an epoch is open the last holder may still say so. */
	if (!state->change_open || scene->grant == NULL || scene->holder == NULL ||
		scene->holder->closed_membership != state->membership)
		return false;
	action->kind = QDB_ACT_CLOSE_CHANGE;	/* I13 */
	set_reason(action, "%s counts by membership %llu", name_of(scene, scene->grant->holder),
			   (unsigned long long) state->membership);
	return true;
}

/* No single loss should take the primary and the Raft leader. */
static bool
rule_lead_elsewhere(Scene *scene, QdbAction *action)
{
	const QdbState *state = scene->state;
	const QdbLeaderView *view = scene->view;
	uint64_t	target = 0;

	if (scene->grant->holder != view->self || qdb_count_voters(state) < 3 ||
		view->now_us - view->leader_since_us <= TRANSFER_AFTER_US)
		return false;
	for (uint32_t i = 0; i < state->nmembers; i++)
	{
		const QdbMember *m = &state->members[i];

		if (m->role == QDB_ROLE_VOTER && m->id != view->self && is_connected(scene, m->id) &&
			(target == 0 || m->id < target))
			target = m->id;
	}
	if (target == 0)
		return false;
	action->kind = QDB_ACT_TRANSFER;
	action->member = target;
	set_reason(action, "the primary should not also coordinate");
	return true;
}

/* Learners become voters in pairs, so that the number of voters stays odd. */
static bool
rule_promote_learner(Scene *scene, QdbAction *action)
{
	const QdbState *state = scene->state;
	uint32_t	ready = 0;
	uint64_t	first = 0;
	bool		first_alone = false;
	bool		alone = false;

	if (QDB_KEEPS(QDB_RULE_ONE_CHANGE, state->change_open))
		return false;			/* I13 */
	for (uint32_t i = 0; i < state->nmembers; i++)
	{
		const QdbMember *m = &state->members[i];
		const QdbPeerView *peer = find_peer(scene->view, m->id);

		if (m->role != QDB_ROLE_LEARNER || peer == NULL || !peer->connected || !peer->caught_up)
			continue;			/* I11 */
		ready++;
		alone = alone || m->alone;
		if (first == 0 || (m->alone && !first_alone) || (m->alone == first_alone && m->id < first))
		{
			first = m->id;
			first_alone = m->alone;
		}
	}
	if (ready == 0 || (ready == 1 && !alone && qdb_count_voters(state) % 2 == 1))
		return false;
	action->kind = QDB_ACT_PROMOTE_LEARNER;
	action->member = first;
	set_reason(action, "%s has caught up", name_of(scene, first));
	return true;
}

/* A rule that returns true has decided, be it for doing nothing. */
static const struct
{
	const char *when;
	bool		(*rule) (Scene *scene, QdbAction *action);
}			rules[] =

{
	{"no cluster yet", rule_not_initialized},
	{"epoch open, a seat can be given", rule_seat},
	{"seat released", rule_released},
	{"holder restarted", rule_restarted},
	{"holder's process is dead", rule_gone},
	{"holder counts by the new membership", rule_close_change},
	{"another was asked for", rule_moved},
	{"new leader: listen first", rule_new_leader},
	{"epoch open, no seat yet", rule_no_seat},
	{"holder silent", rule_silent},
	{"gate not open yet", rule_not_opened},
	{"we hold the seat and lead Raft", rule_lead_elsewhere},
	{"learners caught up", rule_promote_learner},
};

QdbAction
qdb_failover_decide(const QdbState *state, const QdbLeaderView *view)
{
	Scene		scene = {.state = state,.view = view,.grant = qdb_current_grant(state)};
	QdbAction	action;

	memset(&action, 0, sizeof(action));
	if (state->ngrants > 0)
		scene.holder = find_peer(view, state->grants[state->ngrants - 1].holder);
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
		if (rules[i].rule(&scene, &action))
			break;
	if (action.kind != QDB_ACT_SEAT)
		memset(&action.grant, 0, sizeof(action.grant));
	if (action.kind == QDB_ACT_NONE)
		action.reason[0] = '\0';
	return action;
}
