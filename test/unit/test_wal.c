/*-------------------------------------------------------------------------
 *
 * test_wal.c
 *		The parts of src/wal that are plain C: WAL frames, compression, lag.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wal/compress.h"
#include "core/lag.h"
#include "wal/messages.h"

static int	failures = 0;
static int	number = 0;

static void
check(bool ok, const char *what)
{
	printf("%s %d - %s\n", ok ? "ok" : "not ok", ++number, what);
	failures += !ok;
}

static uint32_t
next_random(uint32_t *seed)
{
	*seed = *seed * 1664525 + 1013904223;
	return *seed >> 8;
}

/* What was compressed comes back; anything else is refused and writes nothing past the room. */
static void
test_codec(QdbCodec codec, const char *name)
{
	static uint8_t raw[QDB_WAL_RAW_MAX];
	static uint8_t packed[QDB_WAL_RAW_MAX];
	uint8_t    *out = malloc(QDB_WAL_RAW_MAX);	/* its end is watched */
	uint32_t	seed = 7;
	bool		refused = true;
	char		what[100];
	size_t		n;

	for (size_t i = 0; i < sizeof(raw); i++)
		raw[i] = i % 64 < 48 ? 0 : (uint8_t) next_random(&seed);
	n = qdb_compress(codec, raw, sizeof(raw), packed, sizeof(packed));
	snprintf(what, sizeof(what), "%s: what was compressed comes back", name);
	check(n > 0 && n < sizeof(raw) / 2 && qdb_decompress(codec, packed, n, out, sizeof(raw)) &&
		  memcmp(raw, out, sizeof(raw)) == 0, what);

	snprintf(what, sizeof(what), "%s: another length is refused", name);
	check(!qdb_decompress(codec, packed, n, out, sizeof(raw) - 1) &&
		  !qdb_decompress(codec, packed, n - 1, out, sizeof(raw)) &&
		  !qdb_decompress(codec, packed, 0, out, sizeof(raw)), what);
	free(out);

	for (int i = 0; i < 2000; i++)
	{
		static uint8_t bad[QDB_WAL_RAW_MAX];
		size_t		room = 1 + next_random(&seed) % 4096;
		uint8_t    *small = malloc(room);

		memcpy(bad, packed, n);
		for (int j = 0; j < 4; j++)
			bad[next_random(&seed) % n] ^= (uint8_t) next_random(&seed);
		refused = refused && !qdb_decompress(codec, bad, n, small, room);
		free(small);
	}
	snprintf(what, sizeof(what), "%s: damaged bytes never write past their room", name);
	check(refused, what);

	for (size_t i = 0; i < sizeof(raw); i++)
		raw[i] = (uint8_t) next_random(&seed);
	snprintf(what, sizeof(what), "%s: what does not get smaller is not taken", name);
	check(qdb_compress(codec, raw, 4096, packed, 4096 - 512) == 0, what);
}

static void
test_prefix(void)
{
	uint8_t		buf[64] = {0};
	QdbWalPrefix prefix;

	buf[2] = 10;				/* raw length */
	check(qdb_wal_prefix_decode(buf, QDB_WAL_PREFIX_BYTES + 10, &prefix) &&
		  prefix.raw_length == 10 && prefix.data_length == 10, "a plain WAL frame");
	check(!qdb_wal_prefix_decode(buf, QDB_WAL_PREFIX_BYTES + 9, &prefix),
		  "a plain frame with another length is refused");
	check(!qdb_wal_prefix_decode(buf, QDB_WAL_PREFIX_BYTES - 1, &prefix), "a short one too");
	buf[1] = QDB_CODEC_ZSTD + 1;
	check(!qdb_wal_prefix_decode(buf, QDB_WAL_PREFIX_BYTES + 10, &prefix), "an unknown codec too");
	buf[1] = QDB_CODEC_LZ4;
	check(qdb_wal_prefix_decode(buf, QDB_WAL_PREFIX_BYTES + 3, &prefix) && prefix.data_length == 3,
		  "a compressed one may be shorter");
	buf[4] = 4;					/* 262154 bytes */
	check(!qdb_wal_prefix_decode(buf, QDB_WAL_PREFIX_BYTES + 3, &prefix),
		  "a length past the cap is refused before anything is unpacked");
	buf[4] = 0;
	buf[0] = 0x80;
	check(!qdb_wal_prefix_decode(buf, QDB_WAL_PREFIX_BYTES + 3, &prefix), "unknown flags too");
}

static void
test_lag(void)
{
	QdbLagTracker lag;

	qdb_lag_reset(&lag);
	check(qdb_lag_now(&lag, 100) == -1, "no lag is known before anything was reached");
	qdb_lag_sent(&lag, 1000, 100);
	qdb_lag_sent(&lag, 2000, 200);
	qdb_lag_reached(&lag, 1500, 250);
	check(qdb_lag_now(&lag, 250) == 150, "the lag of what was reached last");
	check(qdb_lag_now(&lag, 5000) == 4800, "grows while nothing moves");
	qdb_lag_reached(&lag, 2000, 5000);
	check(qdb_lag_now(&lag, 6000) == 0, "is none when all was reached");
	for (int i = 0; i < 10000; i++)
		qdb_lag_sent(&lag, 3000 + i, 7000 + i);
	check(qdb_lag_now(&lag, 20000) == 13000, "the oldest sample survives any number of them");
	qdb_lag_reached(&lag, 3000 + 9999, 20000);
	check(qdb_lag_now(&lag, 20000) == 0, "and the newest ends it");
}

int
main(void)
{
	test_codec(QDB_CODEC_LZ4, "lz4");
	test_codec(QDB_CODEC_ZSTD, "zstd");
	test_prefix();
	test_lag();
	printf("1..%d\n", number);
	return failures != 0;
}
