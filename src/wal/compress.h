/*-------------------------------------------------------------------------
 *
 * compress.h
 *		Compression of WAL frames.
 *
 * Plain C over liblz4 and libzstd.  Every frame is compressed by itself, so
 * that one result serves all replicas and a lost connection loses no state.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_WAL_COMPRESS_H
#define QDB_WAL_COMPRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* On the wire; also the values of quantadb.replication_compression. */
typedef enum QdbCodec
{
	QDB_CODEC_NONE = 0,
	QDB_CODEC_LZ4 = 1,
	QDB_CODEC_ZSTD = 2
} QdbCodec;

/*
 * Compresses into out; the number of bytes used, or 0 when the result does not
 * fit out_size: that is how the caller says what is worth it.
 */
extern size_t qdb_compress(QdbCodec codec, const void *raw, size_t raw_length,
						   void *out, size_t out_size);

/*
 * Decompresses bytes of unknown origin into out, which has room for
 * raw_length; false unless they are exactly that many.  Never writes past it.
 */
extern bool qdb_decompress(QdbCodec codec, const void *in, size_t in_length,
						   void *out, size_t raw_length);

#endif							/* QDB_WAL_COMPRESS_H */
