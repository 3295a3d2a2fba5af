/*-------------------------------------------------------------------------
 *
 * raft_io_load.c
 *		What libraft starts with: term, vote, snapshot and log.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/raft_io.h"
#include "cluster/raft_wire.h"

static int
load_entries(QdbRaftIo *io, struct raft_entry **entries, size_t *n)
{
	QdbRaftStorage *s = io->storage;
	size_t		size = 8;
	uint8_t    *batch;
	size_t		i;

	*entries = NULL;
	*n = s->n;
	if (s->n == 0)
		return 0;
	for (i = 0; i < s->n; i++)
		size += s->entries[i].len;
	batch = raft_malloc(size);
	*entries = raft_calloc(s->n, sizeof(struct raft_entry));
	if (batch == NULL || *entries == NULL)
		goto fail;
	size = 0;
	for (i = 0; i < s->n; i++)
	{
		struct raft_entry *e = &(*entries)[i];

		e->term = s->entries[i].term;
		e->type = s->entries[i].type;
		e->buf.base = batch + size;
		e->buf.len = s->entries[i].len;
		e->batch = batch;
		size += s->entries[i].len;
		if (!qdb_io_storage_ok(io, qdb_storage_read(s, s->first + i, e->buf.base)))
			goto fail;
		if (e->type == RAFT_CHANGE && !qdb_wire_check_configuration(e->buf.base, e->buf.len))
			goto fail;
	}
	/* without a snapshot the log must begin with the first configuration */
	if (s->snap_index == 0 && (*entries)[0].type != RAFT_CHANGE)
		goto fail;
	return 0;

fail:
	raft_free(batch);
	raft_free(*entries);
	*entries = NULL;
	*n = 0;
	return RAFT_CORRUPT;
}

int
qdb_io_load_snapshot(QdbRaftIo *io, struct raft_snapshot **snapshot)
{
	QdbRaftSnapshot snap;
	struct raft_snapshot *out = NULL;
	struct raft_buffer conf;

	*snapshot = NULL;
	if (!qdb_io_storage_ok(io, qdb_storage_get_snapshot(io->storage, &snap)))
		return RAFT_CORRUPT;
	if (snap.index == 0)
		return 0;
	out = raft_calloc(1, sizeof(*out));
	if (out == NULL)
		goto fail;
	out->index = snap.index;
	out->term = snap.term;
	out->configuration_index = snap.conf_index;
	out->n_bufs = 1;
	out->bufs = raft_calloc(1, sizeof(struct raft_buffer));
	if (out->bufs == NULL)
		goto fail;
	out->bufs[0].len = snap.data_len;
	out->bufs[0].base = raft_malloc((size_t) snap.data_len + 1);
	conf.base = snap.conf;
	conf.len = snap.conf_len;
	if (out->bufs[0].base == NULL || !qdb_wire_check_configuration(snap.conf, snap.conf_len) ||
		raft_configuration_decode(&conf, &out->configuration) != 0)
		goto fail;
	memcpy(out->bufs[0].base, snap.data, snap.data_len);
	free(snap.conf);
	free(snap.data);
	*snapshot = out;
	return 0;

fail:
	if (out != NULL && out->bufs != NULL)
		raft_free(out->bufs[0].base);
	if (out != NULL)
		raft_free(out->bufs);
	raft_free(out);
	free(snap.conf);
	free(snap.data);
	return RAFT_CORRUPT;
}

static bool
is_sole_voter(const struct raft_configuration *conf, raft_id id)
{
	unsigned	others = 0;
	bool		self = false;

	for (unsigned i = 0; i < conf->n; i++)
	{
		if (conf->servers[i].role != RAFT_VOTER)
			continue;
		self |= conf->servers[i].id == id;
		others += conf->servers[i].id != id;
	}
	return self && others == 0;
}

/*
 * begin_term
 *		A new term for a sole voter.
 *
 * It leads at once, and libraft 0.22 lets it do so in the term that it led before. Others
 * may have entries of that term which it sent and then lost, before they were on its
 * disk: new ones under the same numbers would not be told from them.
 */
static int
begin_term(QdbRaftIo *io, const struct raft_snapshot *snapshot,
		   const struct raft_entry *entries, size_t n)
{
	struct raft_configuration conf;
	bool		sole = snapshot != NULL && is_sole_voter(&snapshot->configuration, io->storage->id);

	/* The newest configuration counts, committed or not. */
	while (n > 0 && entries[n - 1].type != RAFT_CHANGE)
		n--;
	if (n > 0)
	{
		if (raft_configuration_decode(&entries[n - 1].buf, &conf) != 0)
			return RAFT_NOMEM;
		sole = is_sole_voter(&conf, io->storage->id);
		raft_configuration_close(&conf);
	}
	if (sole)
		qdb_storage_set_term(io->storage, io->storage->term + 1);
	return 0;
}

int
qdb_io_load(struct raft_io *raft_io, raft_term * term, raft_id * voted_for,
			struct raft_snapshot **snapshot, raft_index * start_index,
			struct raft_entry *entries[], size_t *n_entries)
{
	QdbRaftIo  *io = raft_io->impl;
	int			rv;

	*start_index = io->storage->first;
	rv = qdb_io_load_snapshot(io, snapshot);
	if (rv == 0)
	{
		rv = load_entries(io, entries, n_entries);
		if (rv == 0 && (rv = begin_term(io, *snapshot, *entries, *n_entries)) != 0 && *n_entries > 0)
		{
			raft_free((*entries)[0].batch);
			raft_free(*entries);
		}
		if (rv != 0 && *snapshot != NULL)
		{
			raft_configuration_close(&(*snapshot)->configuration);
			raft_free((*snapshot)->bufs[0].base);
			raft_free((*snapshot)->bufs);
			raft_free(*snapshot);
		}
	}
	if (rv != 0)
	{
		snprintf(raft_io->errmsg, sizeof(raft_io->errmsg), "%s", io->failed ?
				 io->storage->why : "Raft log or snapshot is corrupt");
		return rv;
	}
	*term = io->storage->term;
	*voted_for = io->storage->vote;
	return 0;
}
