# QuantaDB: see README.md.  "make help" lists the targets.
EXTENSION    = quantadb
MODULE_big   = quantadb
DATA         = $(wildcard sql/quantadb--*.sql)
OBJS         = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c src/*/*.c)))

PG_CONFIG   ?= $(firstword $(wildcard /usr/lib/postgresql/15/bin/pg_config) pg_config)

# Inlining across the server needs clang and LLVM and gains nothing here.
override with_llvm = no

PG_CPPFLAGS  = -Isrc $(RAFT_CFLAGS) -DQDB_DASHBOARD_FILE='"src/http/dashboard.html"'
PG_CFLAGS    = -std=gnu11 -Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare \
	-Wno-missing-field-initializers -Wno-declaration-after-statement
SHLIB_LINK   = $(RAFT_LIBS) -lmicrohttpd -lgnutls -lcurl -lssl -lcrypto -llz4 -lzstd -Wl,--version-script=src/exports.map

REGRESS      = basic
REGRESS_OPTS = --inputdir=test --temp-instance=tmp_regress --temp-config=test/quantadb.conf
EXTRA_CLEAN  = build/fuzz build/unit build/sim build/model tmp_regress

# Without libraft nothing builds: its place is found, or made, before all else.
# Goals that need no compiler do without.
no_deps = clean distclean maintainer-clean uninstall help check-assert check-sanitize demo-stop indent model bench chaos
ifneq ($(filter-out $(no_deps),$(or $(MAKECMDGOALS),all)),)
include build/deps.mk
endif
export RAFT_CFLAGS RAFT_LIBS PG_CONFIG

PGXS := $(shell $(PG_CONFIG) --pgxs 2>/dev/null)
ifneq ($(PGXS),)
include $(PGXS)
# PGXS tracks no headers.
$(OBJS): $(wildcard src/*.h src/*/*.h)
quantadb.so: src/exports.map
src/http/dashboard.o: src/http/dashboard.html
else
all:
endif

build/deps.mk: test/scripts/deps.sh
	@test/scripts/deps.sh build

.PHONY: deps unit layers test check-long check-assert check-sanitize chaos demo demo-stop bench indent model sim help fuzz

deps:
	@test/scripts/deps.sh build

unit:
	bash test/unit/run.sh
	bash test/unit/run_raft.sh

layers: all
	bash test/scripts/check_layers.sh

test:
	@MAKE="$(MAKE)" bash test/scripts/run_tests.sh

check-long:
	@MAKE="$(MAKE)" SCENARIO=all bash test/scripts/chaos.sh; chaos=$$?; \
		MAKE="$(MAKE)" bash test/scripts/run_tests.sh long && exit $$chaos

check-assert:
	@bash test/scripts/check_server.sh assert

check-sanitize:
	@bash test/scripts/check_server.sh sanitize

chaos:
	@MAKE="$(MAKE)" bash test/scripts/chaos.sh

demo:
	@MAKE="$(MAKE)" bash test/scripts/demo.sh start

demo-stop:
	@bash test/scripts/demo.sh stop

bench:
	@MAKE="$(MAKE)" bash test/scripts/bench.sh

fuzz:
	@FUZZ_SECONDS=$(SECONDS) FUZZ_RUNS=$(RUNS) FUZZ_TARGETS="$(TARGETS)" bash test/fuzz/run.sh fuzz

indent:
	@bash test/scripts/indent.sh

sim:
	@MAKE="$(MAKE)" SEEDS="$(SEEDS)" SEED="$(SEED)" FIRST="$(FIRST)" RULE="$(RULE)" RULES="$(RULES)" bash test/sim/run.sh

model:
	@bash test/scripts/model.sh

help:
	@echo "make             build (fetches and builds what is missing first)"
	@echo "make deps        install the Debian packages that building needs, which make does too"
	@echo "make install     install into the server that PG_CONFIG names"
	@echo "make demo        three nodes on this machine, the primary killed under load"
	@echo "make demo-stop   stop and remove them"
	@echo "make test        everything: unit, layers, regress, clusters"
	@echo "make check-long  all scenarios of chaos, the same and the tests that take long"
	@echo "make check-assert, check-sanitize  suites on a server with assertions, also with ASan and UBSan"
	@echo "make chaos       SCENARIO=mix MINUTES=1: faults under load, then a verdict"
	@echo "make unit        src/core and the Raft node alone"
	@echo "make layers      who includes whom, which symbols leave"
	@echo "make installcheck  SQL regression tests (not as root)"
	@echo "make bench       failovers, streams, TLS, rewinds, clones, memory and the access method"
	@echo "make sim SEEDS=n   n schedules of the deterministic simulator (SEED=k: one, with its trace)"
	@echo "make model       check docs/protocol.pml and its mutations"
	@echo "make fuzz SECONDS=60  each decoder under libFuzzer for so long (RUNS=n: for n executions; TARGETS='raft join')"
	@echo "make indent      format src/ as PostgreSQL does"
