/*-------------------------------------------------------------------------
 *
 * compress.c
 *		LZ4 and Zstandard for WAL frames.
 *
 * Both at their fastest settings: a frame is compressed while a commit waits
 * for it.  Contexts are kept, because making one costs more than a small frame.
 *
 *-------------------------------------------------------------------------
 */
#include "wal/compress.h"

#include <limits.h>
#include <lz4.h>
#include <zstd.h>

#define ZSTD_LEVEL		1

static ZSTD_CCtx * packer = NULL;
static ZSTD_DCtx * unpacker = NULL;

static size_t
compress_zstd(const void *raw, size_t raw_length, void *out, size_t out_size)
{
	size_t		n;

	if (packer == NULL)
		packer = ZSTD_createCCtx();
	if (packer == NULL)
		return 0;
	n = ZSTD_compressCCtx(packer, out, out_size, raw, raw_length, ZSTD_LEVEL);
	return ZSTD_isError(n) ? 0 : n;
}

size_t
qdb_compress(QdbCodec codec, const void *raw, size_t raw_length, void *out, size_t out_size)
{
	int			n = 0;

	if (raw_length > INT_MAX || out_size > INT_MAX)
		return 0;
	if (codec == QDB_CODEC_ZSTD)
		return compress_zstd(raw, raw_length, out, out_size);
	if (codec == QDB_CODEC_LZ4)
		n = LZ4_compress_default(raw, out, (int) raw_length, (int) out_size);
	return n > 0 ? (size_t) n : 0;
}

bool
qdb_decompress(QdbCodec codec, const void *in, size_t in_length, void *out, size_t raw_length)
{
	if (in_length > INT_MAX || raw_length > INT_MAX)
		return false;
	if (codec == QDB_CODEC_LZ4)
		return LZ4_decompress_safe(in, out, (int) in_length, (int) raw_length) == (int) raw_length;
	if (codec != QDB_CODEC_ZSTD)
		return false;
	if (unpacker == NULL)
		unpacker = ZSTD_createDCtx();
	return unpacker != NULL &&
		ZSTD_decompressDCtx(unpacker, out, raw_length, in, in_length) == raw_length;
}
