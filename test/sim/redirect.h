/*-------------------------------------------------------------------------
 *
 * redirect.h
 *		Included before everything else in the real coordinator's files: what
 *		they would get from the operating system they get from the simulator.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_SIM_REDIRECT_H
#define QDB_SIM_REDIRECT_H

#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

extern void *sim_malloc(size_t size);
extern void *sim_calloc(size_t n, size_t size);
extern void *sim_realloc(void *p, size_t size);
extern void sim_free(void *p);
extern int	sim_clock_gettime(clockid_t id, struct timespec *ts);
extern int	sim_kill(pid_t pid, int signo);
extern void sim_exit(int code) __attribute__((noreturn));

#define malloc			sim_malloc
#define calloc			sim_calloc
#define realloc			sim_realloc
#define free			sim_free
#define clock_gettime	sim_clock_gettime
#define kill			sim_kill
#define _exit			sim_exit

#define qdb_state_apply	sim_image_apply

/* A schedule commits some dozen commands: snapshots are to be seen in it. */
extern unsigned sim_snapshot_threshold(void);

#define SNAPSHOT_THRESHOLD	sim_snapshot_threshold()
#define SNAPSHOT_TRAILING	4

#endif							/* QDB_SIM_REDIRECT_H */
