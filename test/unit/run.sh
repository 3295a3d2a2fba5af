#!/bin/sh
# Build the unit tests from src/core alone, with sanitizers, and run them.
set -eu
cd "$(dirname "$0")/../.."
mkdir -p build/unit
status=0
for name in core steps failover members health transfer rehearse join reach peer upstream; do
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

# The bodies of HTTP calls, with PostgreSQL's parser as programs that are no servers get it; it frees nothing.
pg_config=${PG_CONFIG:-/usr/lib/postgresql/15/bin/pg_config}
${CC:-cc} -std=gnu11 -g -O1 -fsanitize=address,undefined -fno-sanitize-recover=all -Isrc -DFRONTEND \
	-I"$("$pg_config" --includedir-server)" -c src/http/body.c -o build/unit/body.o
${CC:-cc} -std=c11 -g -O1 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers -fsanitize=address,undefined -fno-sanitize-recover=all \
	-Isrc -o build/unit/test_body test/unit/test_body.c build/unit/body.o src/core/*.c \
	-L"$("$pg_config" --pkglibdir)" -lpgcommon -lpgport
ASAN_OPTIONS=detect_leaks=0 build/unit/test_body || status=1
exit $status
