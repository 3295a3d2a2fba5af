/*-------------------------------------------------------------------------
 *
 * client.c
 *		Sessions: commits that wait for the quorum, strict reads, and requests
 *		to the coordinator through the mailbox.
 *
 *-------------------------------------------------------------------------
 */
#include "sim.h"

#define WRITE_US		(10 * SIM_MS)
#define READ_US			(50 * SIM_MS)
#define POLL_US			(6 * SIM_MS)

static SimNode *
any_node(void)
{
	SimNode    *node = sim.nodes[sim_below(sim.nnodes)];

	return node->server_up && !node->stopped ? node : NULL;
}

static bool
may_write(SimNode * node)
{
	bool		result;

	sim_enter(node);
	result = !node->in_recovery && node->image->may_write();
	sim_enter(NULL);
	return result;
}

/* ---- writes ---- */

static void
write_something(SimNode * unused, uint64 a, uint64 b)
{
	sim_at(WRITE_US / 2 + sim_below(WRITE_US), write_something, NULL, 0, 0);
	if (sim.now_us < sim.rest_us)
		return;
	for (int i = 0; i < sim.nnodes; i++)
	{
		SimNode    *node = sim.nodes[i];
		SimWrite   *write = NULL;

		if (!node->server_up || node->stopped || node->disk.log.n > SIM_MAX_RECORDS - 40 ||
			sim_chance(30) || !may_write(node))
			continue;
		for (int k = 0; k < SIM_MAX_WRITES && write == NULL; k++)
			if (!sim.writes[k].used)
				write = &sim.writes[k];
		if (write == NULL)
			return;
		*write = (SimWrite)
		{
			.used = true,.node = i,.life = node->life,.epoch = node->shared->seat_epoch
		};
		sim_insert(node, SIM_DATA, &write->index);
		write->id = node->disk.log.rec[write->index].id;
		if (sim_chance(80))
			sim_flush_soon(node);
	}
}

/* The streamer has let commits go: the sessions answer their clients. */
void
sim_released(SimNode * node)
{
	for (int k = 0; k < SIM_MAX_WRITES; k++)
	{
		SimWrite   *write = &sim.writes[k];

		if (!write->used)
			continue;
		if (sim.nodes[write->node]->life != write->life)
			write->used = false;
		else if (write->node == node->index && sim_lsn(write->index + 1) <= node->released &&
				 write->index < node->disk.log.flushed)	/* it flushes, then waits */
		{
			write->used = false;
			sim_check_commit(node, write->index, write->id, write->epoch, node->released_async);
		}
	}
}

/* ---- strict reads ---- */

/* On the primary: what is visible, then the lease. */
static void
finish_primary_read(SimNode * node, uint64 n, uint64 acked)
{
	if (!node->stopped && sim_lease_alive(node))
		sim_check_read(node, (uint32) n, (uint32) acked, "primary");
}

static void
draw_ticket(SimNode * node, SimRead * read)
{
	read->ticket = pg_atomic_add_fetch_u64(&node->shared->read_ticket, 1);
	sim_process_wake(node, 50);
}

/* The epoch whose holder this node follows, its history matched; 0 none. */
static uint64
followed_epoch(const SimNode * node)
{
	const QdbShared *shared = node->shared;

	return shared->promised == shared->target_epoch && shared->promising == shared->target_epoch ?
		shared->target_epoch : 0;
}

/* On a replica, as src/api/strict.c does it. */
static void
poll_read(SimNode * node, uint64 k, uint64 serial)
{
	SimRead    *read = &sim.readers[k];
	const QdbShared *shared = node->shared;
	bool		valid;

	if (!read->used || read->serial != serial)
		return;
	if (read->life != node->life || sim.now_us > read->deadline_us || !node->in_recovery)
	{
		read->used = false;
		return;
	}
	sim_later(POLL_US, poll_read, node, k, serial);
	if (node->stopped)
		return;
	if (read->step != 1 && shared->read_answered < read->ticket)
		return;
	valid = shared->read_epoch != 0 && shared->read_epoch == followed_epoch(node);
	if (read->step != 1 && !valid)
	{
		draw_ticket(node, read);
		return;
	}
	if (read->step == 0)
	{
		read->known = shared->read_lsn;
		read->step = 1;
	}
	if (read->step == 1 && sim_lsn(node->applied) >= read->known)
	{
		read->snapshot = node->applied;
		read->step = 2;
		if (followed_epoch(node) == 0)
			read->used = false;
		else if (sim_lsn(read->snapshot) <= read->known)
		{
			read->used = false;
			sim_check_read(node, read->snapshot, read->acked, "replica");
		}
		else
			draw_ticket(node, read);
	}
	else if (read->step == 2)
	{
		if (shared->read_lsn >= sim_lsn(read->snapshot))
		{
			read->used = false;
			sim_check_read(node, read->snapshot, read->acked, "replica");
		}
		else
			draw_ticket(node, read);
	}
}

static void
read_something(SimNode * unused, uint64 a, uint64 b)
{
	SimNode    *node = any_node();

	sim_at(READ_US / 2 + sim_below(READ_US), read_something, NULL, 0, 0);
	if (node == NULL)
		return;
	if (!node->in_recovery)
	{
		uint32		n = sim_index(Max(node->released, node->shared->epoch_record_end));

		if (may_write(node))
			sim_later(sim_chance(90) ? 50 : sim_below(50 * SIM_MS), finish_primary_read, node, n, sim.ghost.ncommitted);
		return;
	}
	for (int k = 0; k < SIM_MAX_READS; k++)
	{
		if (sim.readers[k].used)
			continue;
		sim.readers[k] = (SimRead)
		{
			.used = true,.serial = ++sim.next_serial,.life = node->life,
				.acked = sim.ghost.ncommitted,.deadline_us = sim.now_us + 200 * SIM_MS
		};
		draw_ticket(node, &sim.readers[k]);
		sim_later(POLL_US, poll_read, node, k, sim.readers[k].serial);
		return;
	}
}

void
sim_clients_begin(void)
{
	memset(sim.writes, 0, sizeof(sim.writes));
	memset(sim.readers, 0, sizeof(sim.readers));
	sim_at(WRITE_US, write_something, NULL, 0, 0);
	sim_at(READ_US, read_something, NULL, 0, 0);
}

/* ---- the mailbox ---- */

/* A free slot; answers that nobody waits for are thrown away. */
static QdbRequest *
free_slot(SimNode * node)
{
	for (int i = 0; i < QDB_MAX_REQUESTS; i++)
	{
		QdbRequest *request = &node->shared->requests[i];

		if (request->state == QDB_REQUEST_DONE)
			request->state = QDB_REQUEST_FREE;
		if (request->state == QDB_REQUEST_FREE)
			return request;
	}
	return NULL;
}

bool
sim_request(SimNode * node, const QdbCommand *command)
{
	QdbRequest *request = node->server_up ? free_slot(node) : NULL;
	size_t		length = sizeof(request->command);

	if (request == NULL || !qdb_command_encode(command, request->command, &length))
		return false;
	request->kind = QDB_REQ_PROPOSE;
	request->length = (uint32) length;
	request->state = QDB_REQUEST_FILLED;
	sim_process_wake(node, 50);
	return true;
}

/* About a node: promote it (value: by force), remove it, give it a role. */
bool
sim_request_named(SimNode * node, QdbRequestKind kind, const char *name, int64 value)
{
	QdbRequest *request = node->server_up ? free_slot(node) : NULL;

	if (request == NULL)
		return false;
	request->kind = kind;
	request->flag = value != 0;
	request->number = value;
	strlcpy(request->text, name, sizeof(request->text));
	request->state = QDB_REQUEST_FILLED;
	sim_process_wake(node, 50);
	return true;
}
