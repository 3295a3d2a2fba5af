/*-------------------------------------------------------------------------
 *
 * raft_wire.h
 *		Raft messages as bytes: our own versioned format, independent of
 *		libraft's.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CLUSTER_RAFT_WIRE_H
#define QDB_CLUSTER_RAFT_WIRE_H

#include <raft.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QDB_RAFT_WIRE_FORMAT	1	/* a message of another one is dropped */
#define QDB_RAFT_MAX_ENTRIES	1024	/* per message */

/* malloc'd bytes, NULL if out of memory or not encodable. */
extern uint8_t *qdb_wire_encode(const struct raft_message *message, uint32_t *len);

/*
 * Decodes and checks everything that can be told from the message alone, so
 * that no assertion of libraft depends on a peer.  Entries' payloads point into
 * data; release with qdb_wire_release.  On false *why is a literal.
 */
extern bool qdb_wire_decode(const uint8_t *data, uint32_t len, uint64_t from,
							struct raft_message *message, const char **why);
extern void qdb_wire_release(struct raft_message *message);

/* libraft's own decoder trusts its input; this one does not. */
extern bool qdb_wire_check_configuration(const uint8_t *buf, size_t len);

#endif							/* QDB_CLUSTER_RAFT_WIRE_H */
