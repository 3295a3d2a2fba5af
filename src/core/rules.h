/*-------------------------------------------------------------------------
 *
 * rules.h
 *		The rules that keep the invariants, by name.
 *
 * The simulator (test/sim) takes one of them out at a time and must then find
 * a violation; that shows that the rule is needed and that the simulator
 * looks.  The server is built without the switches: there a rule is just its
 * condition.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CORE_RULES_H
#define QDB_CORE_RULES_H

#include <stdbool.h>

typedef enum QdbRule
{
	QDB_RULE_LAST_EPOCH,		/* I6: reports compare the epoch of the last
								 * byte first */
	QDB_RULE_MAXIMUM,			/* I6: nobody is seated below another report */
	QDB_RULE_REPORT_MAJORITY,	/* I6: a majority has reported */
	QDB_RULE_NAMED_BOOT,		/* I1: the seat belongs to one boot */
	QDB_RULE_OWN_START,			/* a promotion that ended early can be gone on
								 * from */
	QDB_RULE_GATE,				/* I8: the epoch record is on a quorum first */
	QDB_RULE_BOTH_NUMBERS,		/* I13: an open change needs both majorities */
	QDB_RULE_ONE_CHANGE,		/* I13: one change at a time */
	QDB_RULE_ACK_NAMES,			/* I5: an ack of another epoch or connection */
	QDB_RULE_NEVER_BACK,		/* I5: the quorum LSN and its membership */
	QDB_RULE_OWN_NUMBERS,		/* I13: no counting by a later epoch's state */
	QDB_RULE_TAKE_WAL,			/* I2: only under the promised epoch */
	QDB_RULE_PROMOTING,			/* I3: a superseded promotion is ended first */
	QDB_RULE_LEASE_WAIT,		/* I9: no report while a grant lives */
	QDB_RULE_LEASE_RESTART,		/* I9: also for grants that were forgotten */
	QDB_RULE_LEASE_DRIFT,		/* I9: two clocks do not run alike */
	QDB_RULE_LEASE_RELEASE,		/* I9: a released seat asks for no lease */
	QDB_NCORE_RULES
} QdbRule;

#ifdef QDB_RULE_SWITCHES
extern bool qdb_rule_off[];
#define QDB_KEEPS(rule, condition)	(!qdb_rule_off[rule] && (condition))
#else
#define QDB_KEEPS(rule, condition)	(condition)
#endif

#endif							/* QDB_CORE_RULES_H */
