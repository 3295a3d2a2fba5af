/*-------------------------------------------------------------------------
 *
 * commit.c
 *		A commit that waits for its quorum waits until it has it.
 *
 * SyncRepWaitForLSN gives up when the query is cancelled or the backend is
 * terminated, and then the commit becomes visible and is reported as done
 * without being on a quorum.  So from just before the commit record until the
 * transaction is over, SIGINT and SIGTERM are only remembered.  A statement
 * timeout reaches the backend as SIGINT too.  What ends a wait that can never
 * succeed is the crash cycle of a demotion.
 *
 * Our handlers stay installed once a backend has committed, in front of those
 * that were there; between transactions they pass every signal on.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "libpq/pqsignal.h"
#include "miscadmin.h"

#include "api/hooks.h"

static volatile sig_atomic_t holding = false;
static volatile sig_atomic_t held_int = false;
static volatile sig_atomic_t held_term = false;
static pqsigfunc prev_int = NULL;
static pqsigfunc prev_term = NULL;

static void
handle_int(SIGNAL_ARGS)
{
	if (holding)
		held_int = true;
	else if (prev_int != NULL && prev_int != SIG_DFL && prev_int != SIG_IGN)
		prev_int(postgres_signal_arg);
}

static void
handle_term(SIGNAL_ARGS)
{
	if (holding)
		held_term = true;
	else if (prev_term != NULL && prev_term != SIG_DFL && prev_term != SIG_IGN)
		prev_term(postgres_signal_arg);
}

/*
 * Takes one signal over.  A disposition of "default" or "ignore" cannot be
 * passed on by a call, so such a signal is left alone: it kills outright,
 * which reports no commit, or does nothing.
 */
static void
take_over(int signo, pqsigfunc ours, pqsigfunc *prev)
{
	struct sigaction current;

	if (sigaction(signo, NULL, &current) != 0 || current.sa_handler == ours ||
		current.sa_handler == SIG_DFL || current.sa_handler == SIG_IGN)
		return;
	*prev = current.sa_handler;
	pqsignal(signo, ours);
}

/*
 * From here on, signals are remembered.  What arrived before is acted upon
 * now, where an error still aborts the transaction; what cannot be acted upon
 * (interrupts are held off) is put aside, or the wait would find it.  An error
 * out of here reaches the abort callback, which releases.
 */
void
qdb_hold_signals(void)
{
	if (holding)
		return;
	take_over(SIGINT, handle_int, &prev_int);
	take_over(SIGTERM, handle_term, &prev_term);
	holding = true;
	CHECK_FOR_INTERRUPTS();
	if (QueryCancelPending)
	{
		QueryCancelPending = false;
		held_int = true;
	}
	if (ProcDiePending)
	{
		ProcDiePending = false;
		held_term = true;
	}
}

/* Safe to call at any time, also when nothing was held. */
void
qdb_release_signals(void)
{
	bool		again_int;
	bool		again_term;

	if (!holding)
		return;
	holding = false;
	again_int = held_int;
	again_term = held_term;
	held_int = false;
	held_term = false;

	/* Through the kernel: the handler runs with the mask that it expects. */
	if (again_int)
		kill(MyProcPid, SIGINT);
	if (again_term)
		kill(MyProcPid, SIGTERM);
}
