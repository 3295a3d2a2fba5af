/*-------------------------------------------------------------------------
 *
 * stage.h
 *		Work on data files, prepared while the server runs and done while no
 *		process of it does.
 *
 * A plan is a list of steps.  Its files lie below QDB_STAGE_DIR, in whatever
 * folders the planner makes there.  qdb_stage_commit makes all of them durable and
 * then renames the list to QDB_STAGE_DIR/journal: the commit point.  From then on
 * the server must not run on its old data: the planner forces the crash cycle
 * (qdb_demote), whose callback in the postmaster applies the journal; a boot does
 * it where the server died before.
 *
 * The steps are done in their order.  A step may meet its own work, half or
 * whole, after a kill -9, so the plan must keep to this: between two
 * QDB_STEP_RENAMEs no step may undo another.  The control file comes last: what
 * is before it is durable before it is replaced.
 *
 * Staging functions raise errors and may be used by any process, one at a time.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_STAGE_H
#define QDB_STAGE_H

#include "postgres.h"

#include "core/plan.h"
#include "storage/block.h"

#define QDB_STAGE_JOURNAL		QDB_STAGE_DIR "/journal"
#define QDB_STAGE_PROGRESS		QDB_STAGE_DIR "/progress"

/* One block in a staged file of blocks. */
#define QDB_STAGED_BLOCK_SIZE	(sizeof(BlockNumber) + BLCKSZ)

/* ---- stage.c ---- */

typedef struct QdbStage QdbStage;	/* palloc'd in the context of begin */

/*
 * An empty plan.  keep: what lies in the stage stays there (a clone that is taken
 * up again), else it is removed first.  ERROR while a committed plan waits.
 */
extern QdbStage *qdb_stage_begin(bool keep);

extern void qdb_stage_add_put(QdbStage *stage, const char *staged, const char *path);
extern void qdb_stage_add_blocks(QdbStage *stage, const char *staged, const char *path, uint64 nblocks);
extern void qdb_stage_add_truncate(QdbStage *stage, const char *path, uint64 size);
extern void qdb_stage_add_remove(QdbStage *stage, const char *path);
extern void qdb_stage_add_empty_dir(QdbStage *stage, const char *path);
extern void qdb_stage_add_mkdir(QdbStage *stage, const char *path);
extern void qdb_stage_add_rename(QdbStage *stage, const char *from, const char *to);
extern void qdb_stage_add_remove_tree(QdbStage *stage, const char *path);
extern void qdb_stage_add_symlink(QdbStage *stage, const char *target, const char *path);

/* A small file below the stage; durable with the plan, like all that lies there. */
extern void qdb_stage_text(const char *path, const char *text);

/*
 * Everything below the stage, and below the folder also of ours ("": none), becomes durable,
 * then the plan counts.
 */
extern void qdb_stage_commit(QdbStage *stage, const char *also);

/* Gives the plan up; what lies in the stage is left for qdb_stage_clear. */
extern void qdb_stage_discard(QdbStage *stage);

/* A committed plan waits for its crash cycle. */
extern bool qdb_stage_pending(void);

/* Removes all that lies in the stage; ERROR while a committed plan waits. */
extern void qdb_stage_clear(void);

/* Makes a folder below the stage and its parents. */
extern void qdb_stage_mkdir(const char *path);

/* ---- apply.c ---- */

/*
 * Does what a committed plan says, if there is one.  In the postmaster, when it has
 * no child.  Returns whether there was one; FATAL when it cannot be done,
 * since the server must not run on half of it.
 */
extern bool qdb_apply_pending(void);

/* shmem_startup: registers the callback of the next crash cycle. */
extern void qdb_apply_register(void);

#endif							/* QDB_STAGE_H */
