/*-------------------------------------------------------------------------
 *
 * state_internal.h
 *		Shared by the files that apply commands; nobody else includes it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_CORE_STATE_INTERNAL_H
#define QDB_CORE_STATE_INTERNAL_H

#include "core/state.h"

/*
 * Bounded copy that also clears the rest of the target, so that states that
 * are equal are equal in every byte of their strings.
 */
extern void qdb_copy_text(char *target, size_t target_size, const char *source, size_t source_size);

/* Has the array a terminating zero, and something before it? */
extern bool qdb_is_filled_text(const char *text, size_t size);

/* Index into state->members, or -1. */
extern int	qdb_member_index(const QdbState *state, uint64_t id);

/*
 * One entry for the journal: the reason is the command's text, or the default
 * where that is empty.
 */
extern void qdb_add_journal(QdbState *state, const QdbCommand *command, const char *event,
							const char *node, const char *default_reason);

/* state_members.c */
extern QdbResult qdb_apply_member_add(QdbState *state, const QdbCommand *command);
extern QdbResult qdb_apply_member_update(QdbState *state, const QdbCommand *command);
extern QdbResult qdb_apply_member_role(QdbState *state, const QdbCommand *command);
extern QdbResult qdb_apply_member_remove(QdbState *state, const QdbCommand *command);
extern QdbResult qdb_apply_membership_close(QdbState *state, const QdbCommand *command);

/* state_keys.c */
extern QdbResult qdb_apply_member_key(QdbState *state, const QdbCommand *command);
extern QdbResult qdb_apply_rotate_keys(QdbState *state, const QdbCommand *command);

/* state_tokens.c */
extern QdbResult qdb_apply_token_add(QdbState *state, const QdbCommand *command);
extern QdbResult qdb_apply_api_token_add(QdbState *state, const QdbCommand *command);
extern QdbResult qdb_apply_api_token_revoke(QdbState *state, const QdbCommand *command);

/* state_move.c */
extern QdbResult qdb_apply_move(QdbState *state, const QdbCommand *command);
extern QdbResult qdb_apply_donate(QdbState *state, const QdbCommand *command);
extern void qdb_clear_move(QdbState *state);

/* state_settings.c */
extern void qdb_default_settings(QdbClusterSettings *settings);
extern QdbResult qdb_apply_setting(QdbState *state, const QdbCommand *command);

/* state_watch.c */
extern void qdb_note_outage(QdbState *state, const QdbCommand *command);
extern void qdb_end_outage(QdbState *state, const QdbCommand *command);
extern void qdb_forget_presence(QdbState *state, uint64_t member);
extern QdbResult qdb_apply_presence(QdbState *state, const QdbCommand *command);
extern bool qdb_parse_webhooks(const char *value, char *list);
extern bool qdb_set_webhooks(QdbState *state, const char *value);
extern QdbResult qdb_apply_webhook_told(QdbState *state, const QdbCommand *command);

/* Starts the next membership number; the caller then changes one thing (I13). */
extern void qdb_open_change(QdbState *state);

#endif							/* QDB_CORE_STATE_INTERNAL_H */
