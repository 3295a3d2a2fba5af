/* http.h - between server and routes; inside of this folder only */
#ifndef QDB_HTTP_H
#define QDB_HTTP_H

#include "postgres.h"

#include "lib/stringinfo.h"

typedef struct QdbHttpRequest
{
	const char *method;
	const char *path;
	bool		wants_html;
	const char *lag;			/* query arguments; NULL: not given */
	const char *min_lsn;
} QdbHttpRequest;

typedef struct QdbHttpAnswer
{
	unsigned int status;
	const char *content_type;
	const char *allow;			/* NULL, or the Allow header */
	StringInfoData body;
} QdbHttpAnswer;

/* Fills the answer; may raise errors, so the caller catches. */
extern void qdb_route_request(const QdbHttpRequest *request, QdbHttpAnswer *answer);
extern const char *qdb_http_page(void);

#endif							/* QDB_HTTP_H */
