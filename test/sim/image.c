/*-------------------------------------------------------------------------
 *
 * image.c
 *		The part of a node's image that is not the real coordinator: what the
 *		simulator asks it for.
 *
 * Linked with src/cluster, src/core and libraft into one shared object, of which each
 * node gets a copy.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <raft.h>

#include "access/xlog.h"

#include "cluster/internal.h"
#include "core/health.h"

extern PGDLLEXPORT void sim_image_bind(void);
extern PGDLLEXPORT const QdbState *sim_image_state(void);
extern PGDLLEXPORT size_t sim_image_configuration(const uint64_t *ids, int n, uint8_t *buf, size_t size);
extern PGDLLEXPORT QdbResult sim_image_apply(QdbState *state, const QdbCommand *command);

/* Given by the simulator. */
extern void *sim_malloc(size_t size);
extern void *sim_calloc(size_t n, size_t size);
extern void *sim_realloc(void *p, size_t size);
extern void sim_free(void *p);
extern void sim_applied(const QdbState *state, const QdbCommand *command, QdbResult result);

static void *
heap_malloc(void *data, size_t size)
{
	return sim_malloc(size);
}

static void
heap_free(void *data, void *p)
{
	sim_free(p);
}

static void *
heap_calloc(void *data, size_t n, size_t size)
{
	return sim_calloc(n, size);
}

static void *
heap_realloc(void *data, void *p, size_t size)
{
	return sim_realloc(p, size);
}

static void *
heap_aligned_alloc(void *data, size_t alignment, size_t size)
{
	return sim_malloc(size);
}

static void
heap_aligned_free(void *data, size_t alignment, void *p)
{
	sim_free(p);
}

static struct raft_heap heap = {
	.malloc = heap_malloc,
	.free = heap_free,
	.calloc = heap_calloc,
	.realloc = heap_realloc,
	.aligned_alloc = heap_aligned_alloc,
	.aligned_free = heap_aligned_free
};

void
sim_image_bind(void)
{
	raft_heap_set(&heap);
}

const QdbState *
sim_image_state(void)
{
	return qdb_co.state;
}

/* Raft's first configuration; returns its length. */
size_t
sim_image_configuration(const uint64_t *ids, int n, uint8_t *buf, size_t size)
{
	struct raft_configuration conf;
	struct raft_buffer encoded = {NULL, 0};
	size_t		len = 0;

	raft_configuration_init(&conf);
	for (int i = 0; i < n; i++)
	{
		char		address[32];

		snprintf(address, sizeof(address), "%llu", (unsigned long long) ids[i]);
		if (raft_configuration_add(&conf, ids[i], address, RAFT_VOTER) != 0)
			abort();
	}
	if (raft_configuration_encode(&conf, &encoded) == 0 && encoded.len <= size)
	{
		memcpy(buf, encoded.base, encoded.len);
		len = encoded.len;
	}
	raft_free(encoded.base);
	raft_configuration_close(&conf);
	return len;
}

/* ---- in place of health.c ---- */

extern bool sim_is_sick(void);

const char *
qdb_sickness(void)
{
	return sim_is_sick() ? "its disk is full" : "";
}

void
qdb_health_turn(void)
{
	QdbLeaderView view;

	if (!sim_is_sick() || qdb_shared->open_epoch == 0 || RecoveryInProgress())
		return;
	qdb_build_view(&view);
	if (qdb_health_gives_up(qdb_co.state, &view,
							pg_atomic_read_u64(&qdb_shared->quorum_lsn) >= GetFlushRecPtr(NULL)))
		qdb_give_seat_up("its disk is full", true);
}

#undef qdb_state_apply
extern QdbResult qdb_state_apply(QdbState *state, const QdbCommand *command);

/* What raft_node.c is made to call: the simulator hears of every command. */
QdbResult
sim_image_apply(QdbState *state, const QdbCommand *command)
{
	QdbResult	result = qdb_state_apply(state, command);

	sim_applied(state, command, result);
	return result;
}
