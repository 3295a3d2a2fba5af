/*-------------------------------------------------------------------------
 *
 * watch.c
 *		Who is well and who is not, for those who read logs and journals.
 *
 * Each node logs one line when a peer stops being heard and one when it is
 * heard again, with the reason; heartbeats leave no trace.  The Raft leader
 * also puts into the journal what lasts, so that a crash cycle of a second is
 * no news.  Failover does not look at any of this: it has rules of its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "cluster/internal.h"

#define LOST_US				(2 * 1000 * 1000)
#define BACK_US				(1 * 1000 * 1000)
#define PROPOSE_US			(1 * 1000 * 1000)
#define NOTE_US				(60 * 1000 * 1000)
#define MAX_NOTES			8

typedef struct Watched
{
	uint64		member;			/* 0: slot unused */
	bool		well;
	bool		logged;			/* its illness was */
	int64		since_us;		/* of well or not */
	char		reason[128];
} Watched;

/* Journal entries of this node that wait for a leader. */
typedef struct Note
{
	bool		used;
	bool		under_way;
	int64		give_up_us;
	QdbCommand	command;
} Note;

static Watched watched[QDB_MAX_MEMBERS];
static Note notes[MAX_NOTES];
static int64 next_propose_us = 0;

void
qdb_note_event(const char *event, const char *node, const char *reason)
{
	for (int i = 0; i < MAX_NOTES; i++)
	{
		Note	   *note = &notes[i];

		if (note->used)
			continue;
		memset(note, 0, sizeof(*note));
		note->used = true;
		note->give_up_us = qdb_now_us() + NOTE_US;
		note->command.type = QDB_CMD_NOTE;
		note->command.time_us = qdb_unix_us();
		strlcpy(note->command.value, event, sizeof(note->command.value));
		strlcpy(note->command.node, node, sizeof(note->command.node));
		strlcpy(note->command.text, reason, sizeof(note->command.text));
		return;
	}
	ereport(LOG, (errmsg("[cluster] not in the journal, too much waits for a leader: %s %s: %s",
						 event, node, reason)));
}

static void
note_done(uint64 i, uint64 unused, bool known, QdbResult result)
{
	notes[i].under_way = false;
	if (known)
		notes[i].used = false;
}

/* An unknown outcome is asked again: an entry twice is better than none. */
static void
turn_notes(void)
{
	for (int i = 0; i < MAX_NOTES; i++)
	{
		Note	   *note = &notes[i];

		if (!note->used || note->under_way)
			continue;
		if (qdb_co.now_us > note->give_up_us)
			note->used = false;
		else if (qdb_raft_leader(qdb_co.raft) != 0)
		{
			note->under_way = true;
			if (!qdb_propose(&note->command, note_done, i, 0))
				note->under_way = false;
		}
	}
}

static Watched *
find_watched(uint64 member)
{
	Watched    *unused = NULL;

	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
	{
		if (watched[i].member == member)
			return &watched[i];
		if (unused == NULL && watched[i].member == 0)
			unused = &watched[i];
	}
	if (unused != NULL)
	{
		memset(unused, 0, sizeof(*unused));
		unused->member = member;
		unused->since_us = qdb_co.now_us;
	}
	return unused;
}

/* Why this peer counts as ill; false: it is well. */
static bool
is_ill(const QdbPeer *peer, char *why, size_t size)
{
	int64		limit = Max(qdb_co.state->settings.failover_ms, 3 * qdb_heartbeat_ms) * INT64CONST(1000);

	if (peer == NULL || (peer->heard_us == 0 && !peer->gone))
		strlcpy(why, "it was not heard yet", size);
	else if (peer->gone && peer->goodbye_boot == peer->boot && peer->boot != 0)
		strlcpy(why, peer->goodbye_reason == QDB_GOODBYE_SHUTDOWN ?
				"it was shut down" : "its server has died", size);
	else if (peer->gone)
		strlcpy(why, "its port refuses connections", size);
	else if (qdb_co.now_us - peer->heard_us > limit)
		snprintf(why, size, "no heartbeat for " INT64_FORMAT " ms",
				 (qdb_co.now_us - peer->heard_us) / 1000);
	else
		return false;
	return true;
}

/* Not heard yet is no failure until it has had the time to connect. */
static void
log_illness(Watched *w, const QdbMember *member)
{
	if (w->logged || (w->reason[0] == '\0') ||
		(strcmp(w->reason, "it was not heard yet") == 0 && qdb_co.now_us - w->since_us < LOST_US))
		return;
	w->logged = true;
	ereport(LOG, (errmsg("[cluster] Health check failed for node %s: %s", member->name, w->reason)));
}

static void
watch_member(const QdbMember *member)
{
	Watched    *w = find_watched(member->id);
	char		why[128] = "";
	bool		well = !is_ill(qdb_mesh_peer(member->id), why, sizeof(why));

	if (w == NULL)
		return;
	if (well != w->well)
	{
		if (well && w->logged)
			ereport(LOG, (errmsg("[cluster] Health check passes again for node %s after " INT64_FORMAT " ms",
								 member->name, (qdb_co.now_us - w->since_us) / 1000)));
		w->well = well;
		w->logged = false;
		w->since_us = qdb_co.now_us;
		w->reason[0] = '\0';
	}
	if (!well && w->reason[0] == '\0')
		strlcpy(w->reason, why, sizeof(w->reason));
	if (!well)
		log_illness(w, member);
}

static bool
is_lost(uint64 member)
{
	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
	{
		if (qdb_co.state->lost[i] == member)
			return true;
	}
	return false;
}

/* The leader: what has lasted goes into the journal. */
static void
propose_presence(const QdbMember *member)
{
	const Watched *w = find_watched(member->id);
	bool		lost = is_lost(member->id);
	QdbCommand	command;

	if (member->id == qdb_co.self.member ? !lost :
		(w == NULL || w->well != lost ||
		 qdb_co.now_us - w->since_us < (w->well ? BACK_US : LOST_US)))
		return;
	memset(&command, 0, sizeof(command));
	command.type = lost ? QDB_CMD_MEMBER_BACK : QDB_CMD_MEMBER_LOST;
	command.member.id = member->id;
	if (!lost)
		strlcpy(command.text, w->reason, sizeof(command.text));
	next_propose_us = qdb_co.now_us + PROPOSE_US;
	(void) qdb_propose(&command, NULL, 0, 0);
}

void
qdb_watch_turn(void)
{
	const QdbState *state = qdb_co.state;

	turn_notes();
	for (int i = 0; i < QDB_MAX_MEMBERS; i++)
	{
		if (watched[i].member != 0 && qdb_member_by_id(state, watched[i].member) == NULL)
			watched[i].member = 0;
	}
	for (uint32 i = 0; i < state->nmembers; i++)
	{
		if (state->members[i].id != qdb_co.self.member)
			watch_member(&state->members[i]);
	}
	if (!qdb_is_raft_leader())
		return;
	for (uint32 i = 0; i < state->nmembers && qdb_co.now_us >= next_propose_us; i++)
		propose_presence(&state->members[i]);
}
