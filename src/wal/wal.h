/* wal.h - streamer, receiver transport, quorum release */
#ifndef QDB_WAL_H
#define QDB_WAL_H

/*
 * Loads libpqwalreceiver and puts our table in front of its own; connections
 * that are not for a member's stream (logical ones) go on to libpq's.
 */
extern void qdb_install_receiver(void);

/* Ends the walreceiver's connection; true once none is held (I2). */
extern bool qdb_park_receiver(void);

/*
 * Puts our archive module before what the user has configured (_PG_init).  What
 * archive_library names in the configuration is read once, there.
 */
extern void qdb_install_archive(void);

#endif							/* QDB_WAL_H */
