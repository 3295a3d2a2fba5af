/*-------------------------------------------------------------------------
 *
 * test_raft.c
 *		Three Raft nodes in one process, over an in-memory network and real
 *		directories.
 *
 * Time is real, since the nodes read the clock; every wait polls for its
 * condition.
 *
 *-------------------------------------------------------------------------
 */
#include <fcntl.h>
#include <raft.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cluster/raft_inner.h"
#include "cluster/raft_wire.h"

#define NODES			3
#define QUEUE			4096
#define ELECTION_MS		1000
#define HEARTBEAT_MS	100

typedef struct Packet
{
	uint64_t	from;
	uint64_t	to;
	uint8_t    *data;
	uint32_t	len;
} Packet;

typedef struct Node
{
	uint64_t	id;
	char		dir[512];
	QdbRaft    *raft;
	QdbState	state;
	bool		cut;			/* its messages are lost */
	uint64_t	answered;		/* last request answered as known */
	QdbResult	result;
	unsigned	unknown;
	uint64_t	restored;		/* snapshots */
} Node;

static Node nodes[NODES + 1];
static Packet packets[QUEUE];
static size_t npackets;
static uint64_t new_id;			/* of nodes[2], once it has another */
static unsigned nbarriers;
static unsigned nunset;			/* bytes of those */
static int	ntests;
static int	nfailed;
static bool verbose;

static void
check(bool ok, const char *name)
{
	printf("%s %d - %s\n", ok ? "ok" : "not ok", ++ntests, name);
	fflush(stdout);
	nfailed += !ok;
}

static double
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double) t.tv_sec * 1000 + (double) t.tv_nsec / 1e6;
}

/* What the entries of barriers carry; libraft does not set it, and ASan fills what is new with 0xbe. */
static void
look_at_barriers(const uint8_t *data, uint32_t len, uint64_t from)
{
	struct raft_message m;
	const char *why;

	if (!qdb_wire_decode(data, len, from, &m, &why))
		return;
	for (unsigned i = 0; m.type == RAFT_APPEND_ENTRIES && i < m.append_entries.n_entries; i++)
	{
		const struct raft_entry *e = &m.append_entries.entries[i];
		const uint8_t *bytes = e->buf.base;

		nbarriers += e->type == RAFT_BARRIER;
		for (size_t k = 0; e->type == RAFT_BARRIER && k < e->buf.len; k++)
			nunset += bytes[k] != 0;
	}
	qdb_wire_release(&m);
}

static void
node_send(void *arg, uint64_t member, const uint8_t *data, uint32_t len)
{
	Node	   *node = arg;
	Packet	   *p;

	look_at_barriers(data, len, node->id);
	if (new_id != 0 && member == new_id)
		member = 2;
	if (node->cut || member > NODES || npackets == QUEUE)
		return;
	p = &packets[npackets++];
	p->from = node->id;
	p->to = member;
	p->len = len;
	p->data = malloc(len);
	memcpy(p->data, data, len);
}

static void
node_applied(void *arg, uint64_t index, const QdbCommand *command, QdbResult result)
{
	Node	   *node = arg;

	node->restored += command == NULL && result == QDB_OK;
}

static void
node_proposed(void *arg, uint64_t request, bool known, QdbResult result)
{
	Node	   *node = arg;

	if (known)
	{
		node->answered = request;
		node->result = result;
	}
	else
		node->unknown++;
}

static void
node_log(void *arg, int level, const char *message)
{
	if (verbose && level > 14)
		printf("# %llu: %s\n", (unsigned long long) ((Node *) arg)->id, message);
}

static bool
node_open(Node *node, char *why, size_t why_size)
{
	QdbRaftCallbacks callbacks = {node, node_send, node_applied, NULL, node_proposed, node_log};

	qdb_state_init(&node->state);
	node->raft = qdb_raft_open(node->dir, node->id, &node->state, &callbacks,
							   ELECTION_MS, HEARTBEAT_MS, why, why_size);
	return node->raft != NULL;
}

static void
node_stop(Node *node)
{
	qdb_raft_close(node->raft);
	node->raft = NULL;
}

static void
step(void)
{
	size_t		n = npackets;
	Packet		now[QUEUE];
	size_t		i;

	memcpy(now, packets, n * sizeof(Packet));
	npackets = 0;
	for (i = 0; i < n; i++)
	{
		Node	   *to = &nodes[now[i].to];

		if (to->raft != NULL && !to->cut)
			qdb_raft_receive(to->raft, now[i].from, now[i].data, now[i].len);
		free(now[i].data);
	}
	for (i = 1; i <= NODES; i++)
		if (nodes[i].raft != NULL)
		{
			qdb_raft_turn(nodes[i].raft);
			qdb_raft_reconcile(nodes[i].raft);
		}
	if (npackets == 0)
		usleep(500);
}

static Node *
leader(void)
{
	int			i;

	for (i = 1; i <= NODES; i++)
		if (nodes[i].raft != NULL && !nodes[i].cut &&
			qdb_raft_state(nodes[i].raft) == RAFT_LEADER)
			return &nodes[i];
	return NULL;
}

static Node *
wait_leader(void)
{
	double		until = now_ms() + 10000;

	while (leader() == NULL && now_ms() < until)
		step();
	return leader();
}

/* True once the command was applied with that result; retries while there is no leader. */
static bool
run_command(const QdbCommand *command, QdbResult result)
{
	static uint64_t request = 0;
	double		until = now_ms() + 10000;

	while (now_ms() < until)
	{
		Node	   *node = wait_leader();

		if (node == NULL || !qdb_raft_propose(node->raft, command, ++request))
		{
			step();
			continue;
		}
		while (now_ms() < until && node->raft != NULL && node->answered != request &&
			   qdb_raft_state(node->raft) == RAFT_LEADER)
			step();
		if (node->answered == request)
			return node->result == result;
	}
	return false;
}

static bool
note(int i)
{
	QdbCommand	command = {.type = QDB_CMD_NOTE, .time_us = i};

	snprintf(command.value, sizeof(command.value), "test");
	snprintf(command.text, sizeof(command.text), "note %d", i);
	return run_command(&command, QDB_OK);
}

static bool
wait_equal(void)
{
	double		until = now_ms() + 10000;

	while (now_ms() < until)
	{
		Node	   *node = leader();
		bool		equal = node != NULL;
		int			i;

		for (i = 1; equal && i <= NODES; i++)
			if (nodes[i].raft != NULL)
				equal = nodes[i].state.journal_next == node->state.journal_next &&
					nodes[i].state.nmembers == node->state.nmembers;
		if (equal)
			return true;
		step();
	}
	return false;
}

static bool
init_cluster(void)
{
	QdbCommand	command = {.type = QDB_CMD_INIT, .time_us = 1};

	command.member.id = 1;
	command.member.incarnation = 11;
	command.member.priority = 100;
	snprintf(command.member.name, QDB_NAME_SIZE, "one");
	snprintf(command.value, sizeof(command.value), "11111111-2222-3333-4444-555555555555");
	snprintf(command.text, sizeof(command.text), "main");
	command.grant = (QdbGrant) {.epoch = 1, .timeline = 1, .holder = 1, .incarnation = 11, .boot = 1,
		.lease_ms = 1000, .opened = true};
	return run_command(&command, QDB_OK);
}

static bool
add_member(uint64_t id)
{
	QdbCommand	command = {.type = QDB_CMD_TOKEN_ADD, .time_us = 10};

	command.token.id = id;
	command.token.role = QDB_ROLE_VOTER;
	command.token.expires_us = 1000000;
	memset(command.token.secret_hash, (int) id, QDB_SECRET_HASH_SIZE);
	if (!run_command(&command, QDB_OK))
		return false;
	command.type = QDB_CMD_MEMBER_ADD;
	command.member.id = id;
	command.member.incarnation = id * 11;
	command.member.priority = 100;
	snprintf(command.member.name, QDB_NAME_SIZE, "node%llu", (unsigned long long) id);
	if (!run_command(&command, QDB_OK))
		return false;
	command.type = QDB_CMD_MEMBER_ROLE;
	command.member.role = QDB_ROLE_VOTER;
	command.membership = leader()->state.membership;
	if (!run_command(&command, QDB_OK))
		return false;
	command.type = QDB_CMD_MEMBERSHIP_CLOSE;
	command.membership = leader()->state.membership;
	return run_command(&command, QDB_OK);
}

/* Time for Raft's configuration to follow the state. */
static void
settle(int ms)
{
	double		until = now_ms() + ms;

	while (now_ms() < until)
		step();
}

/* Others may have entries of the term before that this node has lost. */
static void
test_sole_voter(const char *name)
{
	uint64_t	term = qdb_raft_term(nodes[1].raft);
	char		why[256] = "";

	node_stop(&nodes[1]);
	check(node_open(&nodes[1], why, sizeof(why)) && leader() == &nodes[1] &&
		  qdb_raft_term(nodes[1].raft) == term + 1, name);
}

static void
test_formation(void)
{
	char		why[256];

	check(qdb_raft_bootstrap(nodes[1].dir, 1, why, sizeof(why)), "bootstrap");
	check(!qdb_raft_bootstrap(nodes[1].dir, 1, why, sizeof(why)), "a second bootstrap is refused");
	check(qdb_raft_prepare(nodes[2].dir, 2, why, sizeof(why)) &&
		  qdb_raft_prepare(nodes[3].dir, 3, why, sizeof(why)), "prepare two joiners");
	check(node_open(&nodes[1], why, sizeof(why)), "open the first node");
	check(leader() == &nodes[1], "the only voter leads at once");
	check(init_cluster(), "INIT is applied");
	test_sole_voter("a sole voter leads each time in a new term");
	check(node_open(&nodes[2], why, sizeof(why)), "open the first joiner");
	check(add_member(2), "second member");
	check(wait_equal(), "second member has the state");
	settle(500);
	check(node_open(&nodes[3], why, sizeof(why)), "open the second joiner");
	check(add_member(3), "third member");
	check(wait_equal(), "third member has the state");
	settle(1000);
}

/* Each step of a failover waits until its followers know that the last one is committed. */
static void
test_announcement(void)
{
	double		waited = 0;
	int			i;

	for (i = 0; i < 20; i++)
	{
		double		since;
		bool		ok = note(i);

		since = now_ms();
		if (!ok || !wait_equal())
			waited += 10000;
		waited += now_ms() - since;
	}
	check(waited < 20 * HEARTBEAT_MS / 4, "followers know of a commit long before the next heartbeat");
}

static void
test_failover(void)
{
	Node	   *old;
	Node	   *new;
	char		why[256];
	double		t;
	int			i;

	check(note(1) && note(2), "proposals are committed by three voters");
	old = leader();
	node_stop(old);
	t = now_ms();
	new = wait_leader();
	check(new != NULL && new != old, "a new leader after the timeout");
	printf("# %.0f ms by timers\n", now_ms() - t);
	check(note(3), "the two left commit");
	check(node_open(old, why, sizeof(why)), "the stopped node opens again");
	check(wait_equal(), "and catches up");

	settle(300);
	old = leader();
	node_stop(old);
	t = now_ms();
	for (i = 1; i <= NODES; i++)
		if (nodes[i].raft != NULL)
		{
			int			rank = 0;
			int			j;

			for (j = 1; j < i; j++)
				rank += nodes[j].raft != NULL;
			qdb_raft_leader_dead(nodes[i].raft, old->id, rank);
		}
	new = wait_leader();
	t = now_ms() - t;
	printf("# %.0f ms by the fast path\n", t);
	check(new != NULL && t < 400, "the fast path elects before any timer");
	check(note(4), "and its leader commits");
	check(node_open(old, why, sizeof(why)) && wait_equal(), "the old leader follows");
}

static void
test_snapshot(void)
{
	Node	   *lag = leader() == &nodes[3] ? &nodes[2] : &nodes[3];
	uint64_t	restored = lag->restored;
	char		why[256];
	double		t = now_ms();
	bool		ok = true;
	int			i;

	lag->cut = true;
	for (i = 0; ok && i < 1300; i++)
		ok = note(1000 + i);
	check(ok, "1300 entries by two nodes");
	printf("# %.2f ms per entry, fsyncs of two nodes in turn\n", (now_ms() - t) / 1300);
	lag->cut = false;
	check(wait_equal() && lag->restored > restored, "a lagging node gets a snapshot");
	node_stop(lag);
	check(node_open(lag, why, sizeof(why)) && wait_equal(), "and opens with it");
}

/* Damages a copy of a node's log; where < 0 counts from the end. */
static QdbRaft *
open_damaged(const Node *node, long where, long cut, char *why, size_t why_size)
{
	QdbRaftCallbacks callbacks = {(void *) node, node_send, node_applied, NULL, node_proposed, node_log};
	static QdbState state;
	static int	copies = 0;
	char		dir[600];
	char		command[2048];
	char		path[700];
	struct stat st;
	uint8_t		byte;
	int			fd;

	snprintf(dir, sizeof(dir), "%s.copy%d", node->dir, ++copies);
	snprintf(command, sizeof(command), "cp -r '%s' '%s'", node->dir, dir);
	if (system(command) != 0)
		return NULL;
	snprintf(path, sizeof(path), "%s/raft.log", dir);
	fd = open(path, O_RDWR);
	if (fd < 0 || fstat(fd, &st) != 0)
		return NULL;
	if (cut > 0 && ftruncate(fd, st.st_size - cut) != 0)
		return NULL;
	if (cut == 0)
	{
		if (where < 0)
			where += st.st_size;
		if (pread(fd, &byte, 1, where) != 1)
			return NULL;
		byte ^= 0x40;
		if (pwrite(fd, &byte, 1, where) != 1)
			return NULL;
	}
	close(fd);
	qdb_state_init(&state);
	return qdb_raft_open(dir, node->id, &state, &callbacks, ELECTION_MS, HEARTBEAT_MS, why, why_size);
}

static void
test_damage(void)
{
	Node	   *node = leader() == &nodes[1] ? &nodes[2] : &nodes[1];
	static const long places[] = {2, 40, 60, 200};
	char		why[256] = "";
	QdbRaft    *raft;
	size_t		i;

	check(note(1) && note(2) && wait_equal(), "more entries");
	node_stop(node);
	for (i = 0; i < sizeof(places) / sizeof(places[0]); i++)
	{
		raft = open_damaged(node, places[i], 0, why, sizeof(why));
		check(raft == NULL && strstr(why, "corrupt") != NULL, "a damaged log is refused");
		printf("# %s\n", why);
		if (raft != NULL)
			qdb_raft_close(raft);
	}
	raft = open_damaged(node, 0, 5, why, sizeof(why));
	check(raft != NULL, "an incomplete last batch is cut off");
	if (raft != NULL)
		qdb_raft_close(raft);
	raft = open_damaged(node, -3, 0, why, sizeof(why));
	check(raft != NULL, "a torn last batch is cut off");
	if (raft != NULL)
		qdb_raft_close(raft);
	check(node_open(node, why, sizeof(why)) && wait_equal(), "the undamaged one opens");
}

/* An answer to a leader of an older term arrives, whatever libraft left in it. */
static void
test_unset_index(void)
{
	struct raft_message sent = {.type = RAFT_APPEND_ENTRIES_RESULT,.server_id = 2};
	struct raft_message got;
	uint64_t	unset = ~UINT64_C(0) - 5;
	const char *why;
	uint32_t	length;

	for (uint64_t rejected = 0; rejected < 10; rejected += 9)
	{
		uint8_t    *bytes;

		sent.append_entries_result.term = 3;
		sent.append_entries_result.rejected = rejected;
		sent.append_entries_result.last_log_index = unset;
		bytes = qdb_wire_encode(&sent, &length);
		check(bytes != NULL && qdb_wire_decode(bytes, length, 2, &got, &why) &&
			  got.append_entries_result.term == 3 && got.append_entries_result.rejected == rejected &&
			  got.append_entries_result.last_log_index == (rejected > 0 ? rejected - 1 : 0),
			  "an unset index is sent as one that can be");
		free(bytes);
	}
}

/* An answer to a pre-vote that comes when the election is over raises no term. */
static void
test_late_pre_vote(void)
{
	Node	   *node = leader() == &nodes[1] ? &nodes[2] : &nodes[1];
	struct raft_message sent = {.type = RAFT_REQUEST_VOTE_RESULT,.server_id = node->id};
	char		why[256] = "";
	uint64_t	term;
	uint32_t	length;
	uint8_t    *bytes;

	/* Without a leader, so that memory where a candidate's state would be is zero. */
	node_stop(node);
	check(node_open(node, why, sizeof(why)), "a follower starts");
	term = qdb_raft_term(node->raft);
	sent.request_vote_result.version = 2;
	sent.request_vote_result.term = term + 1;
	sent.request_vote_result.vote_granted = true;
	sent.request_vote_result.pre_vote = true;
	bytes = qdb_wire_encode(&sent, &length);
	check(bytes != NULL, "a vote");
	qdb_raft_receive(node->raft, 3, bytes, length);
	free(bytes);
	check(qdb_raft_term(node->raft) == term, "a late pre-vote raises no term");
	check(note(5) && wait_equal(), "and the cluster goes on");
}

/* Who asks for a pre-vote in a term that has passed is told so, or would ask for ever. */
static void
test_refusal_names_the_term(void)
{
	Node	   *to = wait_leader() == &nodes[1] ? &nodes[2] : &nodes[1];
	struct raft_message sent = {.type = RAFT_REQUEST_VOTE,.server_id = to->id};
	struct raft_message got;
	uint64_t	from = to == &nodes[1] ? 2 : 1;
	uint64_t	term = qdb_raft_term(to->raft);
	const char *why;
	uint32_t	length;
	uint8_t    *bytes;
	size_t		before = npackets;
	bool		told = false;

	sent.request_vote.version = 2;
	sent.request_vote.term = term - 1;
	sent.request_vote.candidate_id = from;
	sent.request_vote.pre_vote = true;
	bytes = qdb_wire_encode(&sent, &length);
	check(bytes != NULL && term > 1, "a pre-vote");
	qdb_raft_receive(to->raft, from, bytes, length);
	free(bytes);
	for (size_t i = before; i < npackets; i++)
		if (packets[i].from == to->id && packets[i].to == from &&
			qdb_wire_decode(packets[i].data, packets[i].len, to->id, &got, &why) &&
			got.type == RAFT_REQUEST_VOTE_RESULT)
			told = !got.request_vote_result.vote_granted && got.request_vote_result.term == term;
	check(told, "is refused in the later term");
	check(note(7) && wait_equal(), "and the cluster goes on");
}

/* Its vote is needed, and the entry that makes it a voter has not reached it. */
static void
test_vote_before_it_is_known(void)
{
	Node	   *old = wait_leader();
	Node	   *unaware = old == &nodes[3] ? &nodes[2] : &nodes[3];
	char		why[256];

	settle(300);
	for (unsigned i = 0; i < unaware->raft->raft.configuration.n; i++)
		if (unaware->raft->raft.configuration.servers[i].id == unaware->id)
			unaware->raft->raft.configuration.servers[i].role = RAFT_STANDBY;
	node_stop(old);
	check(wait_leader() != NULL && leader() != unaware, "a node votes that does not know that it may");
	check(note(8), "and a commit needs it");
	node_stop(unaware);
	check(node_open(unaware, why, sizeof(why)) && node_open(old, why, sizeof(why)) && wait_equal(),
		  "and the cluster goes on");
}

/* The leader tells a follower again what it has, and in the same message that more is committed. */
static void
test_commit_never_goes_back(void)
{
	Node	   *from = wait_leader();
	Node	   *to = from == &nodes[1] ? &nodes[2] : &nodes[1];
	struct raft_message sent = {.type = RAFT_APPEND_ENTRIES,.server_id = to->id};
	struct raft_append_entries *entries = &sent.append_entries;
	uint64_t	commit;
	uint32_t	length;
	uint8_t    *bytes;

	settle(500);
	commit = raft_commit_index(&to->raft->raft);
	entries->version = 1;
	entries->term = qdb_raft_term(from->raft);
	entries->prev_log_index = commit - 1;
	entries->prev_log_term = qdb_storage_term_of(to->raft->io.storage, commit - 1);
	entries->leader_commit = commit + 1;
	bytes = qdb_wire_encode(&sent, &length);
	check(bytes != NULL && entries->prev_log_term > 0, "entries");
	qdb_raft_receive(to->raft, from->id, bytes, length);
	free(bytes);
	check(raft_commit_index(&to->raft->raft) == commit, "what is committed stays committed");
	check(note(6) && wait_equal(), "and the cluster goes on");
}

/* ---- the order of completions ---- */

static struct
{
	QdbRaftIo	io;
	QdbRaftStorage *storage;
	struct raft_io_append first;
	struct raft_io_append second;
	struct raft_io_append third;
	struct raft_io_send send;
	char		order[16];
	bool		all_durable;
} drain;

static void
note_done(char what)
{
	size_t		n = strlen(drain.order);

	if (n + 1 < sizeof(drain.order))
		drain.order[n] = what;
}

static void
append_one(struct raft_io_append *req, raft_io_append_cb cb)
{
	uint8_t		byte = 1;
	struct raft_entry entry = {.term = 1,.type = RAFT_BARRIER,.buf = {&byte, 1}};

	drain.io.io.append(&drain.io.io, req, &entry, 1, cb);
}

/* Called early: then the entry is still in memory only. */
static void
append_done(struct raft_io_append *req, int status)
{
	size_t		number = req == &drain.first ? 1 : req == &drain.second ? 2 : 3;

	drain.all_durable &= drain.storage->n - drain.storage->npending >= number;
	note_done((char) ('0' + number));
	if (number == 1)
		append_one(&drain.third, append_done);
}

static void
send_done(struct raft_io_send *req, int status)
{
	note_done('s');
	append_one(&drain.second, append_done);
}

static void
drop_message(void *arg, uint64_t member, const uint8_t *data, uint32_t len)
{
}

/* A send that is taken out of the middle must not make others done before they are on disk. */
static void
test_drain(const char *top)
{
	QdbRaftCallbacks callbacks = {.send = drop_message};
	struct raft_message message = {.type = RAFT_TIMEOUT_NOW,.server_id = 2};
	char		dir[600];
	char		why[256];

	snprintf(dir, sizeof(dir), "%s/drain", top);
	mkdir(dir, 0700);
	check(qdb_storage_create(dir, 1, 0, NULL, 0, why, sizeof(why)) &&
		  (drain.storage = qdb_storage_open(dir, 1, why, sizeof(why))) != NULL, "a storage");
	qdb_io_init(&drain.io, drain.storage, &callbacks);
	drain.all_durable = true;
	append_one(&drain.first, append_done);
	drain.io.io.send(&drain.io.io, &drain.send, &message, send_done);
	qdb_io_drain(&drain.io);
	check(strcmp(drain.order, "s123") == 0, "sends first, the others in order");
	check(drain.all_durable, "nothing is done before it is on disk");
	qdb_storage_close(drain.storage);
}

static void
ignore_append(struct raft_io_append *req, int status)
{
}

static void
ignore_put(struct raft_io_snapshot_put *req, int status)
{
}

/* A snapshot is taken in the step that commits a change, with the configuration before it. */
static void
test_covered_configuration(const char *top)
{
	static QdbRaftIo io;
	QdbRaftCallbacks callbacks = {.send = drop_message};
	struct raft_io_append append;
	struct raft_io_snapshot_put put;
	struct raft_configuration one;
	struct raft_configuration two;
	struct raft_buffer first = {NULL, 0};
	struct raft_entry second = {.term = 1,.type = RAFT_CHANGE};
	char		state[] = "state";
	struct raft_buffer data = {state, sizeof(state)};
	struct raft_snapshot snapshot = {.index = 2,.term = 1,.configuration_index = 1,.bufs = &data,.n_bufs = 1};
	QdbRaftSnapshot got;
	QdbRaftStorage *storage = NULL;
	char		dir[600];
	char		why[256];

	snprintf(dir, sizeof(dir), "%s/covered", top);
	mkdir(dir, 0700);
	raft_configuration_init(&one);
	raft_configuration_init(&two);
	check(raft_configuration_add(&one, 1, "1", RAFT_VOTER) == 0 && raft_configuration_encode(&one, &first) == 0 &&
		  raft_configuration_add(&two, 1, "1", RAFT_VOTER) == 0 && raft_configuration_add(&two, 2, "2", RAFT_VOTER) == 0 &&
		  raft_configuration_encode(&two, &second.buf) == 0 &&
		  qdb_storage_create(dir, 1, RAFT_CHANGE, first.base, (uint32_t) first.len, why, sizeof(why)) &&
		  (storage = qdb_storage_open(dir, 1, why, sizeof(why))) != NULL, "a log with one configuration");
	qdb_io_init(&io, storage, &callbacks);
	io.io.append(&io.io, &append, &second, 1, ignore_append);
	snapshot.configuration = one;
	io.io.snapshot_put(&io.io, 128, &put, &snapshot, ignore_put);
	qdb_io_drain(&io);
	check(!io.failed && qdb_storage_get_snapshot(storage, &got) && got.conf_index == 2 &&
		  got.conf_len == second.buf.len && memcmp(got.conf, second.buf.base, got.conf_len) == 0,
		  "a snapshot has the newest configuration that it covers");
	free(got.conf);
	free(got.data);
	raft_free(first.base);
	raft_free(second.buf.base);
	raft_configuration_close(&one);
	raft_configuration_close(&two);
	qdb_storage_close(storage);
}

static void
test_garbage(void)
{
	static uint8_t buf[512];
	unsigned	seed = 7;
	int			i;

	for (i = 0; i < 60000; i++)
	{
		Node	   *node = &nodes[1 + rand_r(&seed) % NODES];
		uint32_t	len = (uint32_t) rand_r(&seed) % 120;
		uint32_t	j;

		for (j = 0; j < len; j++)
			buf[j] = (uint8_t) rand_r(&seed);
		if (len > 11 && i % 4 != 0)
		{
			/* plausible: our format, a known type, small numbers */
			memset(buf + 3, 0, len - 3);
			buf[0] = 1;
			buf[1] = (uint8_t) (1 + rand_r(&seed) % 6);
			buf[2] = (uint8_t) (rand_r(&seed) % 3);
			for (j = 3; j + 8 <= len; j += 8)
				buf[j] = (uint8_t) (rand_r(&seed) % 16);
		}
		qdb_raft_receive(node->raft, 1 + rand_r(&seed) % 4, buf, len);
		if (i % 200 == 0)
			step();
	}
	check(true, "random messages do no harm");

	/* real messages with a byte changed */
	for (i = 0; i < 3000; i++)
	{
		if (npackets > 0)
		{
			Packet	   *p = &packets[rand_r(&seed) % npackets];

			p->data[(uint32_t) rand_r(&seed) % p->len] ^= (uint8_t) (1 << rand_r(&seed) % 3);
		}
		if (i % 50 == 0 && leader() != NULL)
		{
			QdbCommand	command = {.type = QDB_CMD_NOTE, .time_us = i};

			snprintf(command.value, sizeof(command.value), "x");
			qdb_raft_propose(leader()->raft, &command, 1u << 30);
		}
		step();
	}
	for (i = 1; i <= NODES; i++)
		check(!qdb_raft_failed(nodes[i].raft), "node has not failed");
}

/* A log that begins with a state: it is there at once, and new servers get it. */
static void
test_begin_with(const char *top)
{
	static QdbState before;
	char		why[256] = "";
	QdbCommand	command = {.type = QDB_CMD_NOTE, .time_us = 1};
	int			i;

	memcpy(&before, wait_leader() != NULL ? &leader()->state : &nodes[1].state, sizeof(before));
	for (i = 1; i <= NODES; i++)
	{
		if (nodes[i].raft != NULL)
			node_stop(&nodes[i]);
		snprintf(nodes[i].dir, sizeof(nodes[i].dir), "%s/new%d", top, i);
		nodes[i].cut = false;
		mkdir(nodes[i].dir, 0700);
	}
	while (npackets > 0)
		free(packets[--npackets].data);
	before.nmembers = 1;
	memset(&before.members[1], 0, sizeof(before.members) - sizeof(before.members[0]));
	check(qdb_raft_bootstrap(nodes[1].dir, 1, why, sizeof(why)) &&
		  qdb_raft_begin_with(nodes[1].dir, 1, &before, why, sizeof(why)), "a log begins with a state");
	check(node_open(&nodes[1], why, sizeof(why)), why);
	check(memcmp(&nodes[1].state, &before, sizeof(before)) == 0, "which is there when it opens");
	snprintf(command.value, sizeof(command.value), "x");
	check(wait_leader() == &nodes[1] && run_command(&command, QDB_OK), "its one voter commits");
	test_sole_voter("also where the configuration is a snapshot's");

	command.type = QDB_CMD_TOKEN_ADD;
	command.token.id = 99;
	command.token.role = QDB_ROLE_REPLICA;
	command.token.expires_us = 1000;
	check(run_command(&command, QDB_OK), "a token");
	command.type = QDB_CMD_MEMBER_ADD;
	command.member.id = before.next_member_id;
	command.member.incarnation = 5;
	snprintf(command.member.name, sizeof(command.member.name), "later");
	nodes[2].id = before.next_member_id;
	check(nodes[2].id <= 1000 && run_command(&command, QDB_OK), "a member");
	new_id = nodes[2].id;
	check(qdb_raft_prepare(nodes[2].dir, nodes[2].id, why, sizeof(why)) &&
		  node_open(&nodes[2], why, sizeof(why)), "whose node starts with nothing");
	for (double until = now_ms() + 10000; now_ms() < until && nodes[2].state.journal_next != nodes[1].state.journal_next;)
		step();
	check(memcmp(&nodes[1].state, &nodes[2].state, sizeof(QdbState)) == 0, "gets the state and what came after it");
}

int
main(int argc, char **argv)
{
	int			i;

	if (argc < 2)
		return 2;
	verbose = getenv("VERBOSE") != NULL;
	for (i = 1; i <= NODES; i++)
	{
		nodes[i].id = (uint64_t) i;
		snprintf(nodes[i].dir, sizeof(nodes[i].dir), "%s/n%d", argv[1], i);
	}
	test_formation();
	test_announcement();
	test_failover();
	test_snapshot();
	test_damage();
	test_unset_index();
	test_late_pre_vote();
	test_refusal_names_the_term();
	test_vote_before_it_is_known();
	test_commit_never_goes_back();
	test_drain(argv[1]);
	test_covered_configuration(argv[1]);
	test_garbage();
	test_begin_with(argv[1]);
	check(nbarriers > 0 && nunset == 0, "no byte is sent that nobody has set");
	for (i = 1; i <= NODES; i++)
		if (nodes[i].raft != NULL)
			node_stop(&nodes[i]);
	for (i = 0; (size_t) i < npackets; i++)
		free(packets[i].data);
	printf("1..%d\n", ntests);
	return nfailed != 0;
}
