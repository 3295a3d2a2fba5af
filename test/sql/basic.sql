-- A server with the library loaded that is no member: everything is there, nothing changes.
CREATE EXTENSION quantadb;

-- what there is, and who may call it
SELECT p.oid::regprocedure AS function,
       has_function_privilege('public', p.oid, 'EXECUTE') AS public,
       has_function_privilege('pg_monitor', p.oid, 'EXECUTE') AS monitor
FROM pg_proc p
WHERE p.proname ~ '^quantadb'
ORDER BY p.proname COLLATE "C";
SELECT c.relname, has_table_privilege('pg_monitor', c.oid, 'SELECT') AS monitor
FROM pg_class c
WHERE c.relkind = 'v' AND c.relname ~ '^quantadb'
ORDER BY c.relname COLLATE "C";

-- views are empty, the status says so
SELECT * FROM quantadb_nodes;
SELECT * FROM quantadb_replication;
SELECT * FROM quantadb_journal;
SELECT * FROM quantadb_settings;
SELECT * FROM quantadb_api_tokens;
\x
SELECT * FROM quantadb_status();
\x
SHOW quantadb.node_name;
SHOW quantadb.read_consistency;

-- what needs a cluster says what to do
SELECT quantadb_join_token();
SELECT quantadb_promote();
SELECT quantadb_set_role('n2', 'voter');
SELECT quantadb_remove('n2');
SELECT quantadb_pause();
SELECT quantadb_resume();
SELECT quantadb_set('auto_failover', 'off');
SELECT quantadb_api_token('admin');
SELECT quantadb_revoke_api_token('1');
SELECT quantadb_init('');
SELECT quantadb_rotate_certificates();
SELECT quantadb_join('nowhere', 'token');
SELECT quantadb_join('localhost:8432/../x', 'token');

-- only superusers come so far
CREATE ROLE regress_quantadb;
SET ROLE regress_quantadb;
SELECT quantadb_init('c');
SELECT quantadb_join('localhost:1', 'token');
SELECT count(*) FROM quantadb_nodes;
SELECT state FROM quantadb_status();
RESET ROLE;
DROP ROLE regress_quantadb;

-- the hooks let everything through
CREATE TABLE t (i int);
INSERT INTO t VALUES (1);
SET quantadb.read_consistency = 'strict';
SELECT count(*) FROM t;
COPY t TO stdout;
RESET quantadb.read_consistency;
BEGIN;
INSERT INTO t VALUES (2);
PREPARE TRANSACTION 'regress_quantadb';
COMMIT PREPARED 'regress_quantadb';
SELECT count(*) FROM t;
VACUUM t;
ALTER SYSTEM SET wal_keep_size = '16MB';
ALTER SYSTEM RESET wal_keep_size;
BEGIN;
INSERT INTO t VALUES (3);
SET LOCAL statement_timeout = '10ms';
SELECT pg_sleep(10);
ROLLBACK;

-- LSNs of a session
SELECT quantadb_last_commit_lsn() <= pg_current_wal_insert_lsn() AS written;
SELECT quantadb_wait_for_lsn(quantadb_last_commit_lsn());
SELECT quantadb_wait_for_lsn('FFFFFFFF/0', '10ms');
DROP TABLE t;
DROP EXTENSION quantadb;
