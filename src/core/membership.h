/*-------------------------------------------------------------------------
 *
 * membership.h
 *		What somebody who asks for another role, or for a removal, gets.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CORE_MEMBERSHIP_H
#define QDB_CORE_MEMBERSHIP_H

#include "core/state.h"

/*
 * The next command towards what was asked for: QDB_OK and *command; QDB_UNCHANGED:
 * there is nothing (more) to do; else a refusal, with why and a hint.  The command
 * carries the membership number that it was made for, so it fits no later one (I13).
 * warning is filled where the number of voters will be even.  why, hint and warning
 * have QDB_REASON_SIZE bytes.
 */
typedef struct QdbMemberWish
{
	uint64_t	member;
	bool		remove;
	int			role;			/* QDB_ROLE_VOTER or QDB_ROLE_REPLICA */
	bool		connected;		/* it is here: it hands its vote back before
								 * it goes */
} QdbMemberWish;

extern QdbResult qdb_plan_wish(const QdbState *state, const QdbMemberWish *wish, QdbCommand *command,
							   char *why, char *hint, char *warning);

/* Is it as it was asked for, and the change that it took closed? */
extern bool qdb_wish_is_done(const QdbState *state, const QdbMemberWish *wish);

#endif							/* QDB_CORE_MEMBERSHIP_H */
