/*-------------------------------------------------------------------------
 *
 * retain.h
 *		From where on WAL is kept for the other members.
 *
 * A member needs what follows its replay, and, should it have to be rewound or be the source
 * of a rewind, everything from its last checkpoint's redo point on: replay after a rewind
 * starts no later than there (I12).  One that has left the current epoch's history needs what
 * follows the fork.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CORE_RETAIN_H
#define QDB_CORE_RETAIN_H

#include <stdbool.h>
#include <stdint.h>

/*
 * What a member needs, after what it said of its redo point (0: nothing yet).  follows: it
 * streams or writes the WAL of the current epoch, which forked at fork (0: there is none).
 */
extern uint64_t qdb_retain_needs(uint64_t needs, uint64_t redo, bool follows, uint64_t fork);

/*
 * The first LSN to keep, for the needs of all members, this one too (0: not known; then
 * nothing is let go but for the limit) at this end of WAL.
 */
extern uint64_t qdb_retain_from(const uint64_t *needs, int n, uint64_t end, uint64_t limit);

#endif							/* QDB_CORE_RETAIN_H */
