/*-------------------------------------------------------------------------
 *
 * fuzz.h
 *		What the files with targets share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_FUZZ_H
#define QDB_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define REQUIRE(x)	do { if (!(x)) { fprintf(stderr, "fuzz: %s, line %d\n", #x, __LINE__); abort(); } } while (0)

typedef void (*Target) (const uint8_t *data, size_t size);

/* Writes a file of the corpus. */
extern void seed(const char *dir, const char *target, const char *name, const void *data, size_t size);

/* peers.c */
extern void peers(const uint8_t *data, size_t size);
extern void heartbeats(const uint8_t *data, size_t size);
extern void reads(const uint8_t *data, size_t size);
extern void proposals(const uint8_t *data, size_t size);
extern void handshakes(const uint8_t *data, size_t size);
extern void settings(const uint8_t *data, size_t size);
extern void names(const uint8_t *data, size_t size);
extern void write_peer_seeds(const char *dir);

#endif							/* QDB_FUZZ_H */
