-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION quantadb" to load this file. \quit

-- Without the preload nothing below could work: fail now and say so.
CREATE FUNCTION quantadb_check_loaded() RETURNS void
AS 'MODULE_PATHNAME', 'qdb_sql_check_loaded' LANGUAGE C STRICT;
SELECT quantadb_check_loaded();
DROP FUNCTION quantadb_check_loaded();

-- Who may change the cluster: a role of the whole server, so it may be there already
DO $$
BEGIN
	IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'quantadb_admin') THEN
		CREATE ROLE quantadb_admin NOLOGIN;
	END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
	NULL;
END
$$;

-- Functions that change something

CREATE FUNCTION quantadb_init(cluster_name text) RETURNS text
AS 'MODULE_PATHNAME', 'qdb_sql_init' LANGUAGE C STRICT;

CREATE FUNCTION quantadb_join_token(role text DEFAULT 'voter', ttl interval DEFAULT '1 hour') RETURNS text
AS 'MODULE_PATHNAME', 'qdb_sql_join_token' LANGUAGE C STRICT;

CREATE FUNCTION quantadb_join(peer text, token text, discard_local_data bool DEFAULT false) RETURNS void
AS 'MODULE_PATHNAME', 'qdb_sql_join' LANGUAGE C STRICT;

CREATE FUNCTION quantadb_promote(node text DEFAULT NULL, force bool DEFAULT false) RETURNS bigint
AS 'MODULE_PATHNAME', 'qdb_sql_promote' LANGUAGE C;

CREATE FUNCTION quantadb_set_role(node text, role text) RETURNS void
AS 'MODULE_PATHNAME', 'qdb_sql_set_role' LANGUAGE C STRICT;

CREATE FUNCTION quantadb_recover(cluster_name text) RETURNS text
AS 'MODULE_PATHNAME', 'qdb_sql_recover' LANGUAGE C VOLATILE STRICT;

CREATE FUNCTION quantadb_remove(node text) RETURNS void
AS 'MODULE_PATHNAME', 'qdb_sql_remove' LANGUAGE C STRICT;

CREATE FUNCTION quantadb_pause() RETURNS void
AS 'MODULE_PATHNAME', 'qdb_sql_pause' LANGUAGE C STRICT;

CREATE FUNCTION quantadb_resume() RETURNS void
AS 'MODULE_PATHNAME', 'qdb_sql_resume' LANGUAGE C STRICT;

CREATE FUNCTION quantadb_set(name text, value text) RETURNS void
AS 'MODULE_PATHNAME', 'qdb_sql_set' LANGUAGE C STRICT;

CREATE FUNCTION quantadb_api_token(role text DEFAULT 'monitor', ttl interval DEFAULT '90 days') RETURNS text
AS 'MODULE_PATHNAME', 'qdb_sql_api_token' LANGUAGE C STRICT;

CREATE FUNCTION quantadb_revoke_api_token(id text) RETURNS void
AS 'MODULE_PATHNAME', 'qdb_sql_revoke_api_token' LANGUAGE C STRICT;

CREATE FUNCTION quantadb_rotate_certificates() RETURNS void
AS 'MODULE_PATHNAME', 'qdb_sql_rotate_certificates' LANGUAGE C STRICT;

REVOKE ALL ON FUNCTION quantadb_init(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION quantadb_rotate_certificates() FROM PUBLIC;
REVOKE ALL ON FUNCTION quantadb_join_token(text, interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION quantadb_join(text, text, bool) FROM PUBLIC;
REVOKE ALL ON FUNCTION quantadb_promote(text, bool) FROM PUBLIC;
REVOKE ALL ON FUNCTION quantadb_set_role(text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION quantadb_remove(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION quantadb_recover(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION quantadb_pause() FROM PUBLIC;
REVOKE ALL ON FUNCTION quantadb_resume() FROM PUBLIC;
REVOKE ALL ON FUNCTION quantadb_set(text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION quantadb_api_token(text, interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION quantadb_revoke_api_token(text) FROM PUBLIC;

GRANT EXECUTE ON FUNCTION quantadb_init(text), quantadb_join_token(text, interval),
	quantadb_join(text, text, bool), quantadb_promote(text, bool), quantadb_set_role(text, text),
	quantadb_remove(text), quantadb_recover(text), quantadb_pause(), quantadb_resume(), quantadb_set(text, text),
	quantadb_api_token(text, interval), quantadb_revoke_api_token(text), quantadb_rotate_certificates() TO quantadb_admin;

-- Functions for every session

CREATE FUNCTION quantadb_last_commit_lsn() RETURNS pg_lsn
AS 'MODULE_PATHNAME', 'qdb_sql_last_commit_lsn' LANGUAGE C VOLATILE STRICT;

CREATE FUNCTION quantadb_wait_for_lsn(lsn pg_lsn, timeout interval DEFAULT '10s') RETURNS bool
AS 'MODULE_PATHNAME', 'qdb_sql_wait_for_lsn' LANGUAGE C VOLATILE STRICT;

CREATE FUNCTION quantadb_status(
	OUT cluster text, OUT node text, OUT state text, OUT epoch bigint, OUT timeline int,
	OUT "primary" text, OUT raft_state text, OUT raft_term bigint, OUT raft_leader text,
	OUT raft_last_index bigint, OUT quorum_lsn pg_lsn, OUT lease_ms bigint, OUT can_lose int,
	OUT paused bool, OUT why_not text)
AS 'MODULE_PATHNAME', 'qdb_sql_status' LANGUAGE C VOLATILE STRICT;

CREATE FUNCTION quantadb_rehearse(
	node text, OUT name text, OUT chosen text, OUT why_not text, OUT bytes_behind bigint, OUT replay_lag_ms bigint,
	OUT failover_wait_ms bigint, OUT switchover_wait_ms bigint, OUT last_outage_ms bigint, OUT loss_bytes bigint)
AS 'MODULE_PATHNAME', 'qdb_sql_rehearse' LANGUAGE C VOLATILE STRICT;

REVOKE ALL ON FUNCTION quantadb_rehearse(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quantadb_rehearse(text) TO pg_monitor;

-- Views, and the functions behind them

CREATE FUNCTION quantadb_get_nodes(
	OUT name text, OUT role text, OUT state text, OUT host text, OUT sql_port int, OUT raft_port int,
	OUT replication_port int, OUT http_port int, OUT connected bool, OUT last_seen timestamptz,
	OUT wal_end pg_lsn, OUT lag_bytes bigint, OUT lag_ms bigint, OUT priority int,
	OUT eligible bool, OUT why_not text, OUT resync text, OUT resync_done bigint,
	OUT resync_total bigint, OUT wal_kept_bytes bigint, OUT upstream text) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'qdb_sql_nodes' LANGUAGE C VOLATILE STRICT;

CREATE FUNCTION quantadb_get_replication(
	OUT node text, OUT state text, OUT sent_lsn pg_lsn, OUT write_lsn pg_lsn, OUT flush_lsn pg_lsn,
	OUT apply_lsn pg_lsn, OUT lag_bytes bigint, OUT lag_ms bigint, OUT bytes_raw bigint,
	OUT bytes_wire bigint, OUT reconnects bigint) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'qdb_sql_replication' LANGUAGE C VOLATILE STRICT;

CREATE FUNCTION quantadb_get_journal(
	OUT number bigint, OUT "time" timestamptz, OUT epoch bigint, OUT event text, OUT node text,
	OUT reason text) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'qdb_sql_journal' LANGUAGE C VOLATILE STRICT;

CREATE FUNCTION quantadb_get_lost_writes(
	OUT number bigint, OUT discarded timestamptz, OUT epoch bigint, OUT timeline int, OUT start_lsn pg_lsn,
	OUT end_lsn pg_lsn, OUT transactions bigint, OUT first_commit timestamptz, OUT last_commit timestamptz,
	OUT relations text, OUT saved_bytes bigint, OUT folder text) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'qdb_sql_lost_writes' LANGUAGE C VOLATILE STRICT;

CREATE FUNCTION quantadb_get_settings(OUT name text, OUT value text, OUT description text) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'qdb_sql_settings' LANGUAGE C VOLATILE STRICT;

CREATE FUNCTION quantadb_get_api_tokens(
	OUT id text, OUT role text, OUT creator text, OUT created timestamptz, OUT expires timestamptz) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'qdb_sql_api_tokens' LANGUAGE C VOLATILE STRICT;

CREATE VIEW quantadb_nodes AS SELECT * FROM quantadb_get_nodes();
CREATE VIEW quantadb_replication AS SELECT * FROM quantadb_get_replication();
CREATE VIEW quantadb_journal AS SELECT * FROM quantadb_get_journal();
CREATE VIEW quantadb_lost_writes AS SELECT * FROM quantadb_get_lost_writes();
CREATE VIEW quantadb_settings AS SELECT * FROM quantadb_get_settings();
CREATE VIEW quantadb_api_tokens AS SELECT * FROM quantadb_get_api_tokens();

REVOKE ALL ON FUNCTION quantadb_get_nodes() FROM PUBLIC;
REVOKE ALL ON FUNCTION quantadb_get_replication() FROM PUBLIC;
REVOKE ALL ON FUNCTION quantadb_get_journal() FROM PUBLIC;
REVOKE ALL ON FUNCTION quantadb_get_lost_writes() FROM PUBLIC;
REVOKE ALL ON FUNCTION quantadb_get_settings() FROM PUBLIC;
REVOKE ALL ON FUNCTION quantadb_get_api_tokens() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quantadb_get_nodes() TO pg_monitor;
GRANT EXECUTE ON FUNCTION quantadb_get_replication() TO pg_monitor;
GRANT EXECUTE ON FUNCTION quantadb_get_journal() TO pg_monitor;
GRANT EXECUTE ON FUNCTION quantadb_get_lost_writes() TO pg_monitor;
GRANT EXECUTE ON FUNCTION quantadb_get_settings() TO pg_monitor;
GRANT EXECUTE ON FUNCTION quantadb_get_api_tokens() TO pg_monitor;
GRANT SELECT ON quantadb_nodes, quantadb_replication, quantadb_journal, quantadb_lost_writes, quantadb_settings,
	quantadb_api_tokens TO pg_monitor;

-- An administrator sees what a monitor sees.
GRANT pg_monitor TO quantadb_admin;

-- The storage access method: CREATE TABLE ... USING quantadb

CREATE FUNCTION quantadb_handler(internal) RETURNS table_am_handler
AS 'MODULE_PATHNAME', 'quantadb_handler' LANGUAGE C STRICT;

CREATE ACCESS METHOD quantadb TYPE TABLE HANDLER quantadb_handler;
COMMENT ON ACCESS METHOD quantadb IS 'dense row storage whose WAL replays without waiting for readers';

CREATE FUNCTION quantadb_page_items(rel regclass, block bigint,
	OUT item int, OUT state text, OUT redirect int, OUT length int, OUT columns int, OUT inserter int,
	OUT updater int, OUT flags text[]) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'quantadb_page_items' LANGUAGE C VOLATILE STRICT;

CREATE FUNCTION quantadb_page_transactions(rel regclass, block bigint,
	OUT entry int, OUT xid xid, OUT cid cid, OUT newer tid, OUT flags text[], OUT "row" tid) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'quantadb_page_transactions' LANGUAGE C VOLATILE STRICT;

CREATE FUNCTION quantadb_check(rel regclass, OUT block bigint, OUT item int, OUT problem text) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'quantadb_check' LANGUAGE C VOLATILE STRICT;

REVOKE ALL ON FUNCTION quantadb_page_items(regclass, bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION quantadb_page_transactions(regclass, bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION quantadb_check(regclass) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION quantadb_page_items(regclass, bigint) TO pg_monitor;
GRANT EXECUTE ON FUNCTION quantadb_page_transactions(regclass, bigint) TO pg_monitor;
GRANT EXECUTE ON FUNCTION quantadb_check(regclass) TO pg_monitor;
