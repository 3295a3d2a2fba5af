#!/usr/bin/env bash
#
# indent.sh
#	Formats src/ as PostgreSQL does.  pgindent itself is not in Debian; this is
#	pg_bsd_indent with its options and the few rules of it that matter here.
#
# Names of types are read from src/ and from the server's headers; those of libraries stand below.
#
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v pg_bsd_indent >/dev/null || { echo "indent: install pg-bsd-indent (test/scripts/deps.sh test)" >&2; exit 1; }
headers=$("${PG_CONFIG:-/usr/lib/postgresql/15/bin/pg_config}" --includedir-server)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
{
	grep -rhoE '^}[[:space:]]*[A-Za-z_][A-Za-z0-9_]*;' src "$headers" --include='*.[ch]' | tr -d '} ;\t'
	grep -rhE '^typedef [^(){]*;' src "$headers" --include='*.[ch]' | sed -nE 's/.*[ *]([A-Za-z_][A-Za-z0-9_]*);.*/\1/p'
	grep -rhoE '^typedef .*\(\*? *[A-Za-z_][A-Za-z0-9_]*\) *\(' src "$headers" --include='*.[ch]' |
		sed -nE 's/.*\(\*? *([A-Za-z_][A-Za-z0-9_]*)\) *\($/\1/p'
	printf '%s\n' bool FILE va_list size_t ssize_t pid_t time_t socklen_t sigset_t \
		int8_t int16_t int32_t int64_t uint8_t uint16_t uint32_t uint64_t \
		ASN1_STRING BIGNUM BIO BIO_METHOD EVP_PKEY GENERAL_NAME GENERAL_NAMES SSL SSL_CTX SSL_METHOD \
		X509 X509V3_CTX X509_EXTENSION X509_NAME X509_STORE X509_STORE_CTX \
		CURL CURLcode gnutls_datum_t gnutls_session_t
} | grep -vx text | LC_ALL=C sort -u >"$work/typedefs"	# variables have that name

status=0
for file in src/*.[ch] src/*/*.[ch]; do
	# indent leaves comments alone that begin with a dash.
	sed -E 's!/\* +---!/*---X_X!g' "$file" >"$work/in.c"
	if ! pg_bsd_indent -bad -bap -bbb -bc -bl -cli1 -cp33 -cdb -nce -d0 -di12 -nfc1 -i4 -l79 -lp -lpl \
		-nip -npro -sac -tpg -ts4 -U"$work/typedefs" "$work/in.c" "$work/out.c" >"$work/messages" 2>&1 ||
		[ -s "$work/messages" ]; then
		sed "s|^|indent: $file: |" "$work/messages" >&2
		status=1
		continue
	fi
	sed -E 's!/\*---X_X!/* ---!g; s!\*/(/\*.*\*/)$!*/\t\1!; s!^([A-Za-z_][^[:space:]]*)[ \t]+\*$!\1 *!' \
		"$work/out.c" >"$work/new.c"
	cmp -s "$file" "$work/new.c" || { cp "$work/new.c" "$file"; echo "indented $file"; }
done
exit $status
