#!/bin/sh
# Builds and runs the Raft node test under ASan and UBSan.
# RAFT_CFLAGS and RAFT_LIBS say where libraft is.
set -e
top=$(cd "$(dirname "$0")/../.." && pwd)
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
${CC:-gcc} -std=gnu11 -g -O1 -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers -fsanitize=address,undefined -fno-sanitize-recover=all \
	-I"$top/src" ${RAFT_CFLAGS} "$top"/test/unit/test_raft.c "$top"/src/cluster/raft_*.c \
	"$top"/src/core/*.c ${RAFT_LIBS:--lraft} -o "$out/test_raft"
mkdir "$out/data"
"$out/test_raft" "$out/data"

# The files alone, with the calls that write and sync wrapped.
${CC:-gcc} -std=gnu11 -g -O1 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers -fsanitize=address,undefined -fno-sanitize-recover=all \
	-Wl,--wrap=pwrite,--wrap=fsync,--wrap=fdatasync,--wrap=renameat -I"$top/src" \
	"$top"/test/unit/test_storage.c "$top"/src/cluster/raft_storage.c "$top"/src/cluster/raft_load.c \
	"$top"/src/cluster/raft_disk.c "$top"/src/core/frame.c -o "$out/test_storage"
"$out/test_storage" "$out/data"
