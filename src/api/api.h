/* api.h - SQL functions, hooks */
#ifndef QDB_API_H
#define QDB_API_H

/* ProcessUtility, ExecutorStart, transaction callbacks: the fence and reads. */
extern void qdb_install_hooks(void);

#endif							/* QDB_API_H */
