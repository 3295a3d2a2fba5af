/*-------------------------------------------------------------------------
 *
 * webhooks.c
 *		Tells the webhooks what the journal says.
 *
 * The Raft leader's http worker sends, because it is there when decisions are
 * made and the primary may be what was lost.  Each URL gets the entries in
 * order, one at a time; how far it was told is replicated (WEBHOOK_TOLD), so the
 * next leader goes on there.  What was delivered and not yet noted when a leader
 * is lost is sent again: the event id, which is the journal number, tells.
 *
 * libcurl's multi interface runs inside our loop and never waits.  Its resolver may
 * start a thread; signals are blocked meanwhile, so that no handler of the
 * server ever runs in one.
 *
 *-------------------------------------------------------------------------
 */
#include "http/http.h"

#include <curl/curl.h>
#include <openssl/hmac.h>

#include "libpq/pqsignal.h"
#include "utils/memutils.h"

#define RAFT_LEADER			3	/* libraft's enum raft_state */
#define ACTIVE_MS			20
#define IDLE_MS				200
#define FIRST_RETRY_US		(1 * INT64CONST(1000000))
#define LAST_RETRY_US		(60 * INT64CONST(1000000))
#define TOLD_US				(200 * INT64CONST(1000))
#define TAKE_OVER_US		(500 * INT64CONST(1000))
#define GIVE_BACK_US		(5 * INT64CONST(1000000))
#define GIVE_UP_US			(24 * 3600 * INT64CONST(1000000))
#define CONNECT_MS			5000L
#define CALL_MS				10000L
#define MAX_BODY			4096

typedef struct Hook
{
	char		url[QDB_VALUE_SIZE];	/* empty: unused */
	uint64		told;			/* delivered or given up, up to here */
	CURL	   *easy;			/* a call is under way */
	struct curl_slist *headers;
	uint64		number;			/* of that call */
	int64		event_us;		/* Unix time of its event */
	int64		retry_us;		/* monotonic: not before */
	int			failures;		/* since the last success */
	char		error[CURL_ERROR_SIZE];
	char		body[MAX_BODY];
} Hook;

static CURLM * multi = NULL;
static Hook hooks[QDB_MAX_WEBHOOKS];
static int	told_slot = -1;		/* WEBHOOK_TOLD in the mailbox */
static int64 next_told_us = 0;
static bool any_active = false;

static void
end_call(Hook *hook)
{
	if (hook->easy != NULL)
	{
		curl_multi_remove_handle(multi, hook->easy);
		curl_easy_cleanup(hook->easy);
	}
	curl_slist_free_all(hook->headers);
	hook->easy = NULL;
	hook->headers = NULL;
}

static void
forget_hook(Hook *hook)
{
	end_call(hook);
	memset(hook, 0, sizeof(*hook));
}

void
qdb_webhooks_stop(void)
{
	for (int i = 0; i < QDB_MAX_WEBHOOKS; i++)
		forget_hook(&hooks[i]);
	if (told_slot >= 0)
		qdb_request_abandon(told_slot);
	told_slot = -1;
}

/* Reports and the bookkeeping of memberships are for those who read the journal. */
static bool
is_news(const char *event)
{
	return strcmp(event, "report") != 0 && strcmp(event, "membership_close") != 0 &&
		strcmp(event, "update") != 0;
}

/* Takes the URLs from the state; a place whose URL has changed starts anew. */
static void
take_settings(const QdbState *state)
{
	const char *list = state->settings.webhooks;

	for (int i = 0; i < QDB_MAX_WEBHOOKS; i++)
	{
		char		url[QDB_VALUE_SIZE];

		(void) qdb_next_webhook(&list, url);
		if (strcmp(hooks[i].url, url) != 0)
		{
			forget_hook(&hooks[i]);
			strlcpy(hooks[i].url, url, sizeof(hooks[i].url));
		}
		hooks[i].told = Max(hooks[i].told, state->webhook_told[i]);
	}
}

static size_t
ignore_answer(char *data, size_t size, size_t count, void *arg)
{
	return size * count;
}

static bool
add_header(Hook *hook, const char *text)
{
	struct curl_slist *longer = curl_slist_append(hook->headers, text);

	if (longer == NULL)
		return false;
	hook->headers = longer;
	return true;
}

/* HMAC-SHA256 of "time.body", so that a recorded call cannot be played again later. */
static bool
sign(Hook *hook, const QdbState *state)
{
	const char *secret = state->settings.webhook_secret;
	char	   *signed_text = psprintf("%lld.%s", (long long) (qdb_unix_us() / 1000000), hook->body);
	unsigned char mac[EVP_MAX_MD_SIZE];
	unsigned int length = 0;
	StringInfoData header;

	if (secret[0] == '\0')
		return true;
	if (HMAC(EVP_sha256(), secret, (int) strlen(secret), (const unsigned char *) signed_text,
			 strlen(signed_text), mac, &length) == NULL)
		return false;
	initStringInfo(&header);
	appendStringInfo(&header, "X-QuantaDB-Timestamp: %.*s", (int) strcspn(signed_text, "."), signed_text);
	if (!add_header(hook, header.data))
		return false;
	resetStringInfo(&header);
	appendStringInfoString(&header, "X-QuantaDB-Signature: sha256=");
	for (unsigned int i = 0; i < length; i++)
		appendStringInfo(&header, "%02x", mac[i]);
	return add_header(hook, header.data);
}

/* False: it does not fit, which the sizes of its parts rule out. */
static bool
write_body(Hook *hook, const QdbState *state, const QdbJournalEntry *entry)
{
	const QdbGrant *grant = qdb_current_grant(state);
	const QdbMember *holder = grant != NULL && grant->opened && !state->seat_released ?
	qdb_member_by_id(state, grant->holder) : NULL;
	StringInfoData body;

	initStringInfo(&body);
	appendStringInfoChar(&body, '{');
	qdb_put_text(&body, "id", psprintf("%s/" UINT64_FORMAT, state->cluster_id, entry->number));
	qdb_put_text(&body, "cluster", state->cluster_name);
	qdb_put_int(&body, "number", entry->number);
	qdb_put_time(&body, "time", entry->time_us);
	qdb_put_int(&body, "epoch", entry->epoch);
	qdb_put_text(&body, "event", entry->event);
	qdb_put_text(&body, "node", entry->node);
	qdb_put_text(&body, "reason", entry->reason);
	qdb_put_text(&body, "primary", holder != NULL ? holder->name : NULL);
	appendStringInfoChar(&body, '}');
	return strlcpy(hook->body, body.data, sizeof(hook->body)) < sizeof(hook->body);
}

static bool
set_options(Hook *hook)
{
	CURL	   *easy = hook->easy;

	return curl_easy_setopt(easy, CURLOPT_URL, hook->url) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, CALL_MS) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_USERAGENT, "quantadb") == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_HTTPHEADER, hook->headers) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, hook->body) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, ignore_answer) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, hook->error) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_PRIVATE, hook) == CURLE_OK;
}

static void
retry_later(Hook *hook)
{
	int64		wait = FIRST_RETRY_US << Min(hook->failures, 6);

	hook->failures++;
	hook->retry_us = qdb_now_us() + Min(wait, LAST_RETRY_US);
}

static void
start_call(Hook *hook, const QdbState *state, const QdbJournalEntry *entry)
{
	hook->number = entry->number;
	hook->event_us = entry->time_us;
	hook->error[0] = '\0';
	hook->easy = curl_easy_init();
	if (hook->easy == NULL || !write_body(hook, state, entry) ||
		!add_header(hook, "Content-Type: application/json") ||
		!add_header(hook, psprintf("X-QuantaDB-Event-Id: %s/" UINT64_FORMAT, state->cluster_id, entry->number)) ||
		!sign(hook, state) || !set_options(hook) ||
		curl_multi_add_handle(multi, hook->easy) != CURLM_OK)
	{
		end_call(hook);
		retry_later(hook);
	}
}

/* For the log. */
static char *
host_of(const Hook *hook)
{
	size_t		length;
	const char *host = qdb_url_host(hook->url, &length);

	return pnstrdup(host, length);
}

/* What the journal has dropped cannot be told any more. */
static void
skip_dropped(Hook *hook, const QdbState *state)
{
	uint64		first = state->journal_next - Min(state->njournal, QDB_MAX_JOURNAL);

	if (hook->told + 1 >= first)
		return;
	ereport(LOG, (errmsg("[http] webhook was down too long: events " UINT64_FORMAT " to " UINT64_FORMAT " are not told to %s",
						 hook->told + 1, first - 1, host_of(hook))));
	pg_atomic_fetch_add_u64(&qdb_shared->counters.webhooks_lost, first - 1 - hook->told);
	hook->told = first - 1;
}

static void
next_event(Hook *hook, const QdbState *state)
{
	skip_dropped(hook, state);
	while (hook->told + 1 < state->journal_next)
	{
		const QdbJournalEntry *entry = &state->journal[hook->told % QDB_MAX_JOURNAL];

		if (is_news(entry->event))
		{
			start_call(hook, state, entry);
			return;
		}
		hook->told++;
	}
}

static void
finish_call(Hook *hook, CURLcode code)
{
	long		status = 0;

	curl_easy_getinfo(hook->easy, CURLINFO_RESPONSE_CODE, &status);
	end_call(hook);
	if (code == CURLE_OK && status >= 200 && status < 300)
	{
		if (hook->failures > 0)
			ereport(LOG, (errmsg("[http] webhook at %s answers again", host_of(hook))));
		hook->failures = 0;
		hook->told = hook->number;
		qdb_count(&qdb_shared->counters.webhooks_sent);
		return;
	}
	qdb_count(&qdb_shared->counters.webhooks_failed);
	if (hook->failures == 0)
		ereport(LOG, (errmsg("[http] webhook at %s does not take event " UINT64_FORMAT ": %s",
							 host_of(hook), hook->number,
							 code != CURLE_OK ? (hook->error[0] != '\0' ? hook->error : curl_easy_strerror(code)) :
							 psprintf("HTTP status %ld", status)),
					  errdetail("It is tried again for a day, at most each minute.")));
	if (qdb_unix_us() - hook->event_us > GIVE_UP_US)
	{
		hook->told = hook->number;
		qdb_count(&qdb_shared->counters.webhooks_lost);
	}
	retry_later(hook);
}

static void
run_calls(void)
{
	CURLMsg    *message;
	int			running;
	int			left;

	PG_SETMASK(&BlockSig);
	(void) curl_multi_perform(multi, &running);
	PG_SETMASK(&UnBlockSig);
	while ((message = curl_multi_info_read(multi, &left)) != NULL)
	{
		CURLcode	code = message->data.result;
		Hook	   *hook = NULL;

		if (message->msg == CURLMSG_DONE &&
			curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **) &hook) == CURLE_OK && hook != NULL)
			finish_call(hook, code);
	}
}

/*
 * Makes known how far a URL was told: when nothing more is to be told now, or
 * after a while of telling.  Also by a leader that is none any more.
 */
static void
note_told(const QdbState *state)
{
	static QdbRequest request;
	QdbCommand	command = {.type = QDB_CMD_WEBHOOK_TOLD,.time_us = qdb_unix_us()};
	size_t		length = sizeof(request.command);

	if (told_slot >= 0 && qdb_request_poll(told_slot, &request))
		told_slot = -1;
	if (told_slot >= 0)
		return;
	for (int i = 0; i < QDB_MAX_WEBHOOKS; i++)
	{
		if (hooks[i].url[0] == '\0' || hooks[i].told <= state->webhook_told[i] ||
			(hooks[i].easy != NULL && qdb_now_us() < next_told_us))
			continue;
		strlcpy(command.value, hooks[i].url, sizeof(command.value));
		command.number = hooks[i].told;
		memset(&request, 0, sizeof(request));
		request.kind = QDB_REQ_PROPOSE;
		if (!qdb_command_encode(&command, request.command, &length))
			return;
		request.length = (uint32) length;
		told_slot = qdb_request_post(&request);
		next_told_us = qdb_now_us() + TOLD_US;
		return;
	}
}

/* Only the leader, and nobody who has no webhooks, looks any further. */
static bool
is_sender(void)
{
	bool		leads;
	bool		wanted;

	SpinLockAcquire(&qdb_shared->mutex);
	leads = qdb_shared->raft_state == RAFT_LEADER;
	SpinLockRelease(&qdb_shared->mutex);
	if (!leads || !qdb_shared->member)
		return false;
	LWLockAcquire(qdb_shared->state_lock, LW_SHARED);
	wanted = qdb_shared->state.settings.webhooks[0] != '\0';
	LWLockRelease(qdb_shared->state_lock);
	return wanted;
}

/* No leader any more: ends the calls; true while what was told is not noted yet. */
static bool
hand_over(void)
{
	static int64 since_us = 0;
	const QdbState *state;
	bool		left = false;

	for (int i = 0; i < QDB_MAX_WEBHOOKS; i++)
	{
		end_call(&hooks[i]);
		left = left || hooks[i].url[0] != '\0';
	}
	if (!left && told_slot < 0)
		return false;
	if (since_us == 0)
		since_us = qdb_now_us();
	state = qdb_copy_state();
	left = false;
	for (int i = 0; i < QDB_MAX_WEBHOOKS; i++)
		left = left || (hooks[i].url[0] != '\0' && hooks[i].told > state->webhook_told[i]);
	if ((left || told_slot >= 0) && qdb_now_us() - since_us < GIVE_BACK_US)
	{
		note_told(state);
		return true;
	}
	qdb_webhooks_stop();
	since_us = 0;
	return false;
}

long
qdb_webhooks_turn(void)
{
	static int64 next_look_us = 0;
	static int64 sender_since_us = 0;
	const QdbState *state;
	int64		now = qdb_now_us();

	if (!any_active && now < next_look_us)
		return IDLE_MS;
	if (!is_sender())
	{
		sender_since_us = 0;
		any_active = hand_over();
		next_look_us = now + IDLE_MS * 1000;
		return any_active ? ACTIVE_MS : IDLE_MS;
	}
	/* The leader before may still have to note what it told. */
	if (sender_since_us == 0)
		sender_since_us = now;
	if (now - sender_since_us < TAKE_OVER_US)
		return IDLE_MS;
	if (multi == NULL && (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || (multi = curl_multi_init()) == NULL))
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("could not initialize libcurl")));
	state = qdb_copy_state();
	take_settings(state);
	run_calls();
	any_active = false;
	for (int i = 0; i < QDB_MAX_WEBHOOKS; i++)
	{
		if (hooks[i].url[0] != '\0' && hooks[i].easy == NULL && now >= hooks[i].retry_us)
			next_event(&hooks[i], state);
		any_active = any_active || hooks[i].easy != NULL;
	}
	note_told(state);
	any_active = any_active || told_slot >= 0;
	next_look_us = now + (any_active ? ACTIVE_MS : IDLE_MS) * 1000;
	return any_active ? ACTIVE_MS : IDLE_MS;
}
