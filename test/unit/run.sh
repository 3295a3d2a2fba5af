#!/bin/sh
# Build the unit tests from src/core alone, with sanitizers, and run them.
set -eu
cd "$(dirname "$0")/../.."
mkdir -p build/unit
${CC:-cc} -std=c11 -g -O1 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers -fsanitize=address,undefined -fno-sanitize-recover=all \
	-Isrc -o build/unit/test_core test/unit/test_core.c src/core/*.c
exec build/unit/test_core
