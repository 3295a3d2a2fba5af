#!/usr/bin/env bash
#
# check_layers.sh
#	Who may include whom, which names leave a file, and that every route is described.
#
# core includes core; base: core and base; every other folder: core, base and
# itself; quantadb.c wires them and includes anything.  core is plain C without a
# server header, allocator, clock or I/O.  Prints TAP-like lines; run after make.
#
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
failed=0

result() {	# name, complaints
	if [ -z "$2" ]; then
		echo "ok - layers: $1"
	else
		echo "not ok - layers: $1"
		printf '%s\n' "$2" | sed 's/^/#   /'
		failed=1
	fi
}

# "file folder-of-the-included-header" for every quoted include of ours
includes=$(for f in src/*/*.[ch]; do
	sed -nE 's/^[[:space:]]*#[[:space:]]*include[[:space:]]+"([^"]+)".*/\1/p' "$f" | while read -r header; do
		if [ -f "$(dirname "$f")/$header" ]; then
			echo "$f $(basename "$(dirname "$f")")"
		elif [ -f "src/$header" ]; then
			echo "$f $(dirname "$header")"
		else
			echo "$f server:$header"
		fi
	done
done)

for dir in src/*/; do
	folder=$(basename "$dir")
	case $folder in
	core) allowed='core' ;;
	base) allowed='core|base|server:.*' ;;
	*) allowed="core|base|$folder|server:.*" ;;
	esac
	result "$folder includes only what it may" \
		"$(printf '%s\n' "$includes" | grep "^src/$folder/" | grep -vE " ($allowed)\$" || true)"
done

result "core uses standard headers only" \
	"$(grep -nE '#[[:space:]]*include[[:space:]]*<' src/core/*.[ch] 2>/dev/null |
		grep -vE '<(assert|inttypes|limits|stdarg|stdbool|stddef|stdint|stdio|string)\.h>' || true)"

impure='malloc|calloc|realloc|free|palloc|pfree|time|clock|clock_gettime|gettimeofday|random|rand'
impure="$impure|open|fopen|read|write|printf|fprintf|puts|socket|send|recv|errstart|elog_start|getenv|sleep|usleep|nanosleep"
if ls src/core/*.o >/dev/null 2>&1; then
	result "core calls no allocator, clock or I/O" \
		"$(nm -u -A src/core/*.o | grep -E " U ($impure)(@.*)?\$" || true)"
fi

names='qdb_[A-Za-z0-9_]+|_PG_init|_PG_archive_module_init|Pg_magic_func|pg_finfo_[A-Za-z0-9_]+|quantadb_[A-Za-z0-9_]+'
if ls src/*.o >/dev/null 2>&1; then
	result "every symbol that is not static has our prefix" \
		"$(nm -g -A --defined-only src/*.o src/*/*.o | grep -vE " [A-Z] ($names)\$" || true)"
else
	result "every symbol that is not static has our prefix" "no object files: run make first"
fi
if [ -f quantadb.so ]; then
	result "quantadb.so exports our names only" \
		"$(nm -D -g --defined-only quantadb.so | grep -vE " [A-Za-z] ($names|_init|_fini)\$" || true)"
fi

# Method and path, as the handlers know them and as they are described; /cluster/nodes/ is followed by a name.
routes=$({
	sed -nE 's|^\t\{"(/[^"]*)", QDB_METHOD_([A-Z]+),.*|\2 \1|p' src/http/routes.c
	sed -nE 's|^static const Route node_route = \{NODES, QDB_METHOD_([A-Z]+),.*|\1 /cluster/nodes/{name}|p
		s|^static const Route role_route = \{NODES, QDB_METHOD_([A-Z]+),.*|\1 /cluster/nodes/{name}/role|p' src/http/routes.c
} | sort)
described=$(awk '/^[a-z]/ {in_paths = $1 == "paths:"} in_paths && /^  \// {path = $1; sub(/:$/, "", path)}
	in_paths && /^    (get|post|patch|delete|put):/ {method = toupper($1); sub(/:$/, "", method); print method, path}' docs/openapi.yaml | sort)
result "docs/openapi.yaml describes every route and no other" \
	"$([ "$(printf '%s\n' "$routes" | wc -l)" -ge 20 ] || echo 'the routes are not found in src/http/routes.c'
		diff <(printf '%s\n' "$routes") <(printf '%s\n' "$described"))"
exit $failed
