/*-------------------------------------------------------------------------
 *
 * peers.c
 *		Targets for what members say to each other, apart from Raft's messages, and
 *		for what operators set for all of them.
 *
 * These formats are strict: what a decoder takes, its encoder writes again,
 * byte for byte.
 *
 *-------------------------------------------------------------------------
 */
#include <string.h>

#include "core/peer.h"
#include "core/state.h"
#include "core/transfer.h"
#include "fuzz.h"
#include "wal/messages.h"

#define ROUND_TRIP(what, type) \
	do { \
		static type value; \
		static uint8_t again[64 * 1024 + 1024]; \
		uint32_t	n = sizeof(again); \
		if (qdb_##what##_decode(data, (uint32_t) size, &value)) \
		{ \
			REQUIRE(qdb_##what##_encode(&value, again, &n)); \
			REQUIRE(n == size && memcmp(again, data, size) == 0); \
		} \
	} while (0)

void
peers(const uint8_t *data, size_t size)
{
	ROUND_TRIP(peer_hello, QdbHello);
	ROUND_TRIP(goodbye, QdbGoodbye);
	ROUND_TRIP(removed, QdbRemoved);
}

void
heartbeats(const uint8_t *data, size_t size)
{
	QdbHeartbeat beat;

	ROUND_TRIP(heartbeat, QdbHeartbeat);
	(void) qdb_heartbeat_decode(data, (uint32_t) size, &beat);
	REQUIRE(beat.ncaught_up <= QDB_MAX_MEMBERS);
	REQUIRE(memchr(beat.state, 0, sizeof(beat.state)) && memchr(beat.why_not, 0, sizeof(beat.why_not)) &&
			memchr(beat.step, 0, sizeof(beat.step)));
}

void
reads(const uint8_t *data, size_t size)
{
	ROUND_TRIP(read_request, QdbRead);
	ROUND_TRIP(read_answer, QdbRead);
}

void
proposals(const uint8_t *data, size_t size)
{
	static QdbCommand command;
	QdbProposal proposal;

	ROUND_TRIP(proposal_result, QdbProposalResult);
	if (size > UINT32_MAX || !qdb_proposal_decode(data, (uint32_t) size, &proposal))
		return;
	REQUIRE(proposal.length > 0 && proposal.length <= QDB_COMMAND_MAX_BYTES);
	REQUIRE(proposal.command + proposal.length == data + size);
	(void) qdb_command_decode(proposal.command, proposal.length, &command);
	ROUND_TRIP(proposal, QdbProposal);
}

void
handshakes(const uint8_t *data, size_t size)
{
	ROUND_TRIP(hello, QdbStreamHello);
	ROUND_TRIP(welcome, QdbStreamWelcome);
	ROUND_TRIP(refusal, QdbStreamRefusal);
	ROUND_TRIP(files_hello, QdbFilesHello);
	ROUND_TRIP(files_welcome, QdbFilesWelcome);
	if (size <= 64 * 1024)
		ROUND_TRIP(history, QdbHistoryFile);
}

static void
make_state(QdbState *state)
{
	QdbCommand	command = {.type = QDB_CMD_INIT,.time_us = 1};

	strcpy(command.text, "test");
	strcpy(command.value, "11111111-2222-3333-4444-555555555555");
	strcpy(command.member.name, "n1");
	command.member.id = command.grant.holder = command.grant.epoch = 1;
	command.grant.timeline = 1;
	qdb_state_init(state);
	REQUIRE(qdb_state_apply(state, &command) == QDB_OK);
}

static void
walk_urls(const char *list, bool checked)
{
	char		url[QDB_VALUE_SIZE];
	int			n = 0;

	while (qdb_next_webhook(&list, url))
	{
		size_t		length;
		const char *host = qdb_url_host(url, &length);

		REQUIRE(host >= url && host + length <= url + strlen(url));
		REQUIRE(memchr(host, '@', length) == NULL || strchr(url, '@') < host);
		n++;
	}
	REQUIRE(!checked || (n <= QDB_MAX_WEBHOOKS && *list == '\0'));
}

/* The first byte chooses the setting; then its value, and what replaces that where a 0 parts them. */
void
settings(const uint8_t *data, size_t size)
{
	static const char *const known[] = {"webhooks", "webhook_secret", "lease_duration", "failover_timeout", "open_timeout",
	"min_failover_interval", "auto_failover", "durability", "max_lag_on_failover", "no_such"};
	static QdbState fresh;
	static QdbState state;
	static QdbState decoded;
	static uint8_t buf[QDB_STATE_MAX_BYTES];
	QdbCommand	command = {.type = QDB_CMD_SETTING,.time_us = 2};
	size_t		length = sizeof(buf);
	bool		changed = false;

	if (fresh.nmembers == 0)
		make_state(&fresh);
	if (size == 0)
		return;
	state = fresh;
	strcpy(command.node, known[data[0] % (sizeof(known) / sizeof(known[0]))]);
	data++, size--;
	for (int i = 0; i < 2 && size > 0; i++)
	{
		size_t		len = strnlen((const char *) data, size);

		memset(command.value, 0, sizeof(command.value));
		memcpy(command.value, data, len < sizeof(command.value) ? len : sizeof(command.value) - 1);
		walk_urls(command.value, false);	/* as if a snapshot had brought it */
		if (qdb_state_apply(&state, &command) == QDB_OK)
		{
			walk_urls(state.settings.webhooks, true);
			changed = true;
		}
		len = len < size ? len + 1 : len;
		data += len;
		size -= len;
	}
	if (!changed)
		return;

	/* Once an input: a whole state takes a hundred times what a setting does. */
	REQUIRE(qdb_state_encode(&state, buf, &length) && qdb_state_decode(buf, length, &decoded));
	REQUIRE(strcmp(decoded.settings.webhooks, state.settings.webhooks) == 0 &&
			strcmp(decoded.settings.webhook_secret, state.settings.webhook_secret) == 0 &&
			decoded.settings.max_lag_bytes == state.settings.max_lag_bytes &&
			decoded.settings.lease_ms == state.settings.lease_ms &&
			decoded.settings.failover_ms == state.settings.failover_ms &&
			decoded.settings.open_ms == state.settings.open_ms &&
			decoded.settings.min_failover_ms == state.settings.min_failover_ms &&
			decoded.settings.auto_failover == state.settings.auto_failover &&
			decoded.settings.async == state.settings.async);
}

void
names(const uint8_t *data, size_t size)
{
	QdbCertName name = {.member = 0};
	char		again[QDB_CERT_URI_SIZE];

	if (!qdb_cert_uri_parse(data, size, &name))
		return;
	REQUIRE(name.member != 0 && name.cluster_id[0] != '\0');
	qdb_cert_uri_format(&name, again, sizeof(again));
	REQUIRE(strlen(again) == size && memcmp(again, data, size) == 0);
}

#ifdef REPLAY

#define SEED(target, name, what, value) \
	do { \
		uint32_t	n = sizeof(buf); \
		REQUIRE(qdb_##what##_encode(value, buf, &n)); \
		seed(dir, target, name, buf, n); \
	} while (0)

static void
write_mesh_seeds(const char *dir, uint8_t *command, size_t length)
{
	static uint8_t buf[QDB_COMMAND_MAX_BYTES + 16];
	QdbHello hello = {.member = 2,.name = "n2",.incarnation = 77,.boot = 3,.system_identifier = 42,
	.host = "192.0.2.2",.raft_port = 7432};
	QdbGoodbye	goodbye = {.incarnation = 77,.boot = 3,.reason = 2};
	QdbRemoved	removed = {.member = 2,.incarnation = 77};
	QdbHeartbeat beat = {.flags = QDB_BEAT_ABLE | QDB_BEAT_LEASE_REQUEST,.wal_end = 0x3000000,.state = "primary",
		.primary_age_us = QDB_BEAT_NEVER,.promised = 4,.lease_epoch = 4,.lease_sent = 1234567,
	.limits = {100, 8, 10, 0, 64},.ncaught_up = 2,.caught_up = {3, 4}};
	QdbHeartbeat clone = {.state = "standby",.why_not = "it is being cloned",.step = "clone",.done = 1024,.total = 4096};
	QdbRead		read = {.ticket = 9,.epoch = 4,.ok = true,.lsn = 0x3000148};
	QdbProposal proposal = {.id = 5,.command = command,.length = (uint32_t) length};
	QdbProposalResult result = {.id = 5,.status = 0,.result = QDB_OK,.applied = 12};

	strcpy(hello.cluster_id, "11111111-2222-3333-4444-555555555555");
	SEED("peers", "hello", peer_hello, &hello);
	SEED("peers", "goodbye", goodbye, &goodbye);
	SEED("peers", "removed", removed, &removed);
	SEED("heartbeats", "primary", heartbeat, &beat);
	SEED("heartbeats", "clone", heartbeat, &clone);
	SEED("reads", "request", read_request, &read);
	SEED("reads", "answer", read_answer, &read);
	SEED("proposals", "proposal", proposal, &proposal);
	SEED("proposals", "result", proposal_result, &result);
}

static void
write_stream_seeds(const char *dir)
{
	static uint8_t buf[1024];
	QdbStreamHello hello = {.version = QDB_STREAM_VERSION,.member = 2,.incarnation = 77,.epoch = 4,.replay_timeline = 3};
	QdbStreamWelcome welcome = {.system_identifier = 42,.epoch = 4,.timeline = 3,.flush = 0x3000000,.connection = 1};
	QdbStreamRefusal refusal = {.retry = true,.text = "not the primary"};
	QdbFilesHello files = {.version = QDB_TRANSFER_VERSION,.purpose = QDB_FILES_CLONE,.member = 2,.epoch = 4};
	QdbFilesWelcome fit = {.system_identifier = 42,.block_size = 8192,.wal_segment_size = 1 << 24};
	QdbHistoryFile	history = {.name = "00000003.history",.content = (const uint8_t *) "1\t0/3000000\tx\n",.length = 14};
	static const uint8_t messages[] = {3, 0, 0, 0, 'w', 1, 2, 1, 0, 0, 0, 'k'};

	SEED("handshakes", "hello", hello, &hello);
	SEED("handshakes", "welcome", welcome, &welcome);
	SEED("handshakes", "refusal", refusal, &refusal);
	SEED("handshakes", "files_hello", files_hello, &files);
	SEED("handshakes", "files_welcome", files_welcome, &fit);
	SEED("handshakes", "history", history, &history);
	seed(dir, "streams", "messages", messages, sizeof(messages));
}

static void
write_text_seeds(const char *dir)
{
	static const char *const texts[][2] = {
		{"hooks", "\x01https://u:p@h.example:8443/a?b#c, http://[2001:db8::1]/x"},
		{"secret", "\x02s3cret"},
		{"duration", "\x03" "1500 ms"},
		{"switch", "\x07" "off"},
		{"size", "\x09" "10MB"}};
	QdbCertName name = {.member = 3,.incarnation = 77,.rotation = 2};
	char		uri[QDB_CERT_URI_SIZE];
	char		text[128];

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
	{
		size_t		len = strlen(texts[i][1]);

		/* Zero cannot stand in a literal: the choice is one less. */
		memcpy(text, texts[i][1], len);
		text[0]--;
		seed(dir, "settings", texts[i][0], text, len);
	}
	strcpy(name.cluster_id, "11111111-2222-3333-4444-555555555555");
	qdb_cert_uri_format(&name, uri, sizeof(uri));
	seed(dir, "names", "member", uri, strlen(uri));
}

void
write_peer_seeds(const char *dir)
{
	uint8_t		command_bytes[QDB_COMMAND_MAX_BYTES];
	size_t		length = sizeof(command_bytes);
	QdbCommand	command = {.type = QDB_CMD_ROTATE_KEYS,.time_us = 1};

	REQUIRE(qdb_command_encode(&command, command_bytes, &length));
	write_mesh_seeds(dir, command_bytes, length);
	write_stream_seeds(dir);
	write_text_seeds(dir);
}
#endif
