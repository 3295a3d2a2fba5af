#!/bin/sh
# Build the unit tests from src/core alone, with sanitizers, and run them.
set -eu
cd "$(dirname "$0")/../.."
mkdir -p build/unit
status=0
for name in core steps failover members health transfer rehearse body; do
	${CC:-cc} -std=c11 -g -O1 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare \
		-Wno-missing-field-initializers -fsanitize=address,undefined -fno-sanitize-recover=all \
		-Isrc -o build/unit/test_$name test/unit/test_$name.c src/core/*.c
	build/unit/test_$name || status=1
done

# What is plain C in src/wal, with its libraries.
${CC:-cc} -std=c11 -g -O1 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers -fsanitize=address,undefined -fno-sanitize-recover=all \
	-Isrc -o build/unit/test_wal test/unit/test_wal.c src/wal/compress.c src/wal/messages.c \
	src/core/*.c -llz4 -lzstd
build/unit/test_wal || status=1
exit $status
