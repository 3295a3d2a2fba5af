/*-------------------------------------------------------------------------
 *
 * storage.c
 *		Raft's folder in memory: raft_storage.h over a simulated disk.
 *
 * What is appended is durable after a sync, which takes the time of an fsync; a
 * process or machine that dies before loses it.  A full disk makes a sync fail for good.
 *
 *-------------------------------------------------------------------------
 */
#include "sim.h"

#include "cluster/raft_storage.h"

extern void *sim_malloc(size_t size);
extern void *sim_realloc(void *p, size_t size);
extern void *sim_calloc(size_t n, size_t size);
extern void sim_free(void *p);

/* ---- the disk ---- */

void
sim_raft_disk_clear(SimRaftDisk * disk)
{
	for (size_t i = 0; i < disk->n; i++)
		free(disk->entries[i].data);
	free(disk->entries);
	free(disk->snap_conf);
	free(disk->snap_data);
	memset(disk, 0, sizeof(*disk));
}

void
sim_raft_disk_begin(SimRaftDisk * disk, uint64 id)
{
	sim_raft_disk_clear(disk);
	disk->id = id;
	disk->first = 1;
}

void
sim_raft_disk_add(SimRaftDisk * disk, uint64 term, uint8 type, const void *data, uint32 len)
{
	SimRaftEntry *entry;

	if (disk->n == disk->cap)
	{
		disk->cap = disk->cap == 0 ? 64 : disk->cap * 2;
		disk->entries = realloc(disk->entries, disk->cap * sizeof(SimRaftEntry));
	}
	entry = &disk->entries[disk->n++];
	entry->term = term;
	entry->type = type;
	entry->len = len;
	entry->data = malloc(len + 1);
	memcpy(entry->data, data, len);
}

/* Keeps n entries. */
static void
cut_disk(SimRaftDisk * disk, size_t n)
{
	while (disk->n > n)
		free(disk->entries[--disk->n].data);
}

static SimRaftDisk *
disk_of(void)
{
	return &sim.current->disk.raft;
}

/* ---- raft_storage.h ---- */

static bool
storage_fail(QdbRaftStorage *s, const char *why)
{
	if (!s->failed)
		snprintf(s->why, sizeof(s->why), "%s", why);
	s->failed = true;
	return false;
}

bool
qdb_storage_create(const char *dir, uint64_t id, uint8_t type, const uint8_t *entry, uint32_t len,
				   char *why, size_t why_size)
{
	sim_raft_disk_begin(disk_of(), id);
	if (entry != NULL)
		sim_raft_disk_add(disk_of(), 1, type, entry, len);
	return true;
}

static void
put_entry(QdbRaftStorage *s, uint64_t term, uint8_t type, uint32_t len)
{
	if (s->n == s->cap)
	{
		s->cap = s->cap == 0 ? 64 : s->cap * 2;
		s->entries = sim_realloc(s->entries, s->cap * sizeof(QdbLogEntry));
	}
	s->entries[s->n++] = (QdbLogEntry)
	{
		.term = term,.type = type,.len = len
	};
}

QdbRaftStorage *
qdb_storage_open(const char *dir, uint64_t id, char *why, size_t why_size)
{
	SimRaftDisk *disk = disk_of();
	QdbRaftStorage *s;

	if (disk->id != id)
	{
		snprintf(why, why_size, "there is no log of member %llu", (unsigned long long) id);
		return NULL;
	}
	s = sim_calloc(1, sizeof(*s));
	s->id = id;
	s->term = disk->term;
	s->vote = disk->vote;
	s->first = disk->first;
	s->snap_index = disk->snap_index;
	s->snap_term = disk->snap_term;
	for (size_t i = 0; i < disk->n; i++)
		put_entry(s, disk->entries[i].term, disk->entries[i].type, disk->entries[i].len);
	return s;
}

void
qdb_storage_close(QdbRaftStorage *s)
{
	sim_free(s->entries);
	sim_free(s->batch);
	sim_free(s);
}

void
qdb_storage_set_term(QdbRaftStorage *s, uint64_t term)
{
	s->term = term;
	s->vote = 0;
	s->meta_dirty = true;
}

void
qdb_storage_set_vote(QdbRaftStorage *s, uint64_t vote)
{
	s->vote = vote;
	s->meta_dirty = true;
}

bool
qdb_storage_append(QdbRaftStorage *s, uint64_t term, uint8_t type, const void *data, uint32_t len)
{
	if (s->failed)
		return false;
	if (s->batch_used + len > s->batch_cap)
	{
		s->batch_cap = (s->batch_used + len) * 2;
		s->batch = sim_realloc(s->batch, s->batch_cap);
	}
	put_entry(s, term, type, len);
	s->entries[s->n - 1].offset = s->batch_used;
	memcpy(s->batch + s->batch_used, data, len);
	s->batch_used += len;
	s->npending++;
	return true;
}

/* An fsync: time passes, and the machine may die before or after it. */
static bool
sync_disk(QdbRaftStorage *s)
{
	SimNode    *node = sim.current;

	if (s->failed)
		return false;
	if (node->disk.full)
		return storage_fail(s, "no space left on device");
	if (node->fsync_us > 0)
		sim_process_wait(node->fsync_us);
	return true;
}

bool
qdb_storage_sync_meta(QdbRaftStorage *s)
{
	if (!s->meta_dirty)
		return !s->failed;
	if (!sync_disk(s))
		return false;
	disk_of()->term = s->term;
	disk_of()->vote = s->vote;
	s->meta_dirty = false;
	return true;
}

bool
qdb_storage_sync(QdbRaftStorage *s)
{
	if (!qdb_storage_sync_meta(s))
		return false;
	if (s->npending == 0)
		return !s->failed;
	if (!sync_disk(s))
		return false;
	for (size_t i = s->n - s->npending; i < s->n; i++)
		sim_raft_disk_add(disk_of(), s->entries[i].term, s->entries[i].type,
						  s->batch + s->entries[i].offset, s->entries[i].len);
	s->npending = 0;
	s->batch_used = 0;
	return true;
}

bool
qdb_storage_truncate(QdbRaftStorage *s, uint64_t index)
{
	if (!qdb_storage_sync(s))
		return false;
	if (index < s->first + s->n)
	{
		s->n = index > s->first ? index - s->first : 0;
		cut_disk(disk_of(), s->n);
	}
	return true;
}

bool
qdb_storage_put_snapshot(QdbRaftStorage *s, const QdbRaftSnapshot *snap, unsigned trailing)
{
	SimRaftDisk *disk = disk_of();
	size_t		keep = 0;
	size_t		drop;

	if (!qdb_storage_sync(s) || !sync_disk(s))
		return false;
	free(disk->snap_conf);
	free(disk->snap_data);
	disk->snap_conf = malloc(snap->conf_len + 1);
	disk->snap_data = malloc(snap->data_len + 1);
	memcpy(disk->snap_conf, snap->conf, snap->conf_len);
	memcpy(disk->snap_data, snap->data, snap->data_len);
	disk->snap_conf_len = snap->conf_len;
	disk->snap_data_len = snap->data_len;
	disk->snap_index = s->snap_index = snap->index;
	disk->snap_term = s->snap_term = snap->term;
	disk->snap_conf_index = snap->conf_index;
	if (trailing == 0)
	{
		cut_disk(disk, 0);
		s->n = 0;
		s->first = disk->first = snap->index + 1;
		return true;
	}
	if (snap->index > trailing)
		keep = snap->index - trailing + 1;
	if (keep <= s->first)
		return true;
	drop = keep - s->first;
	if (drop > s->n)
		drop = s->n;
	for (size_t i = 0; i < drop; i++)
		free(disk->entries[i].data);
	memmove(disk->entries, disk->entries + drop, (disk->n - drop) * sizeof(SimRaftEntry));
	memmove(s->entries, s->entries + drop, (s->n - drop) * sizeof(QdbLogEntry));
	disk->n -= drop;
	s->n -= drop;
	s->first = disk->first = s->first + drop;
	return true;
}

uint64_t
qdb_storage_last_index(const QdbRaftStorage *s)
{
	return s->first + s->n - 1;
}

uint64_t
qdb_storage_term_of(const QdbRaftStorage *s, uint64_t index)
{
	if (index >= s->first && index < s->first + s->n)
		return s->entries[index - s->first].term;
	return index != 0 && index == s->snap_index ? s->snap_term : 0;
}

bool
qdb_storage_read(QdbRaftStorage *s, uint64_t index, void *buf)
{
	const SimRaftDisk *disk = disk_of();
	size_t		i = index - disk->first;

	if (index < disk->first || i >= disk->n)
		return storage_fail(s, "no such entry");
	memcpy(buf, disk->entries[i].data, disk->entries[i].len);
	return true;
}

bool
qdb_storage_get_snapshot(QdbRaftStorage *s, QdbRaftSnapshot *snap)
{
	const SimRaftDisk *disk = disk_of();

	memset(snap, 0, sizeof(*snap));
	if (disk->snap_index == 0)
		return true;
	snap->index = disk->snap_index;
	snap->term = disk->snap_term;
	snap->conf_index = disk->snap_conf_index;
	snap->conf_len = disk->snap_conf_len;
	snap->data_len = disk->snap_data_len;
	snap->conf = sim_malloc(snap->conf_len + 1);
	snap->data = sim_malloc(snap->data_len + 1);
	memcpy(snap->conf, disk->snap_conf, snap->conf_len);
	memcpy(snap->data, disk->snap_data, snap->data_len);
	return true;
}
