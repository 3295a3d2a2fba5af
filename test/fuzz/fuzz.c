/*-------------------------------------------------------------------------
 *
 * fuzz.c
 *		One target for each decoder of bytes that come from somebody else.
 *
 * Built for libFuzzer with -DTARGET=NAME (test/fuzz/run.sh), or with -DREPLAY as a
 * program that runs files, or writes the seeds: what the encoders write.
 * Whatever a decoder takes must be encoded again to the same bytes, where
 * the format is strict.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/raft_wire.h"
#include "core/frame.h"
#include "core/join.h"
#include "core/plan.h"
#include "core/state.h"
#include "core/token_text.h"
#include "core/transfer.h"
#include "http/body.h"
#include "wal/compress.h"
#include "wal/messages.h"
#include "fuzz.h"

static void
frames(const uint8_t *data, size_t size)
{
	QdbFrameHeader header;
	const char *why;

	while (size >= QDB_FRAME_HEADER_SIZE)
	{
		const uint8_t *payload = data + QDB_FRAME_HEADER_SIZE;

		if (!qdb_frame_decode_header(data, &header, &why))
			return;
		REQUIRE(header.length <= qdb_frame_max_length(header.type));
		if (header.length > size - QDB_FRAME_HEADER_SIZE)
			return;
		(void) qdb_frame_check(data, payload, header.length);
		size -= QDB_FRAME_HEADER_SIZE + header.length;
		data = payload + header.length;
	}
}

static void
commands(const uint8_t *data, size_t size)
{
	static QdbCommand command;
	static QdbState state;
	uint8_t		again[QDB_COMMAND_MAX_BYTES];
	size_t		length = sizeof(again);

	if (!qdb_command_decode(data, size, &command))
		return;
	if (qdb_command_encode(&command, again, &length))
		REQUIRE(length == size && memcmp(again, data, size) == 0);
	/* Applied to an empty state and to one with a member: no more than that it ends. */
	qdb_state_init(&state);
	(void) qdb_state_apply(&state, &command);
	strcpy(state.cluster_id, "11111111-2222-3333-4444-555555555555");
	strcpy(state.members[0].name, "n1");
	state.nmembers = 1;
	state.members[0].id = 1;
	state.members[0].role = QDB_ROLE_VOTER;
	state.next_member_id = 2;
	state.epoch = state.membership = 1;
	(void) qdb_state_apply(&state, &command);
}

static void
snapshots(const uint8_t *data, size_t size)
{
	static QdbState state;
	static uint8_t again[QDB_STATE_MAX_BYTES];
	size_t		length = sizeof(again);

	if (!qdb_state_decode(data, size, &state))
		return;
	REQUIRE(qdb_state_encode(&state, again, &length));
	REQUIRE(length == size && memcmp(again, data, size) == 0);
}

static void
raft(const uint8_t *data, size_t size)
{
	struct raft_message message;
	const char *why;

	if (size > UINT32_MAX)
		return;
	memset(&message, 0, sizeof(message));
	if (qdb_wire_decode(data, (uint32_t) size, 2, &message, &why))
	{
		uint32_t	length;
		uint8_t    *again = qdb_wire_encode(&message, &length);

		free(again);
		qdb_wire_release(&message);
	}
	(void) qdb_wire_check_configuration(data, size);
}

static void
streams(const uint8_t *data, size_t size)
{
	uint32_t	length = (uint32_t) size;
	QdbStreamReply reply;
	uint32_t	timeline;
	uint64_t	lsn;
	const uint8_t *rest = data;
	uint32_t	left = length;
	const uint8_t *message;
	uint32_t	n;

	(void) qdb_reply_decode(data, length, &reply);
	(void) qdb_position_decode(data, length, &timeline, &lsn);
	(void) qdb_history_request_decode(data, length, &timeline);
	/* What a WAL frame carries, once it is unpacked. */
	while (left > 0 && qdb_wal_message_take(&rest, &left, &message, &n))
	{
		REQUIRE(n > 0 && message >= data && message + n == rest);
		REQUIRE(rest + left == data + length);
	}
}

static void
compressed(const uint8_t *data, size_t size)
{
	static uint8_t raw[256 * 1024];
	QdbWalPrefix prefix;

	(void) qdb_wal_prefix_decode(data, (uint32_t) size, &prefix);
	for (size_t out = 1; out <= sizeof(raw); out *= 8)
	{
		(void) qdb_decompress(QDB_CODEC_LZ4, data, size, raw, out);
		(void) qdb_decompress(QDB_CODEC_ZSTD, data, size, raw, out);
	}
}

static void
transfers(const uint8_t *data, size_t size)
{
	uint32_t	length = (uint32_t) size;
	QdbFilesHello hello;
	QdbFilesWelcome welcome;
	QdbTransferRequest request;
	QdbManifestInfo info;
	QdbSourcePosition position;
	QdbTransferAnswer answer;
	QdbManifestEntry entry;
	uint32_t	used = 0;

	(void) qdb_files_hello_decode(data, length, &hello);
	(void) qdb_files_welcome_decode(data, length, &welcome);
	(void) qdb_transfer_request_decode(data, length, &request);
	(void) qdb_manifest_info_decode(data, length, &info);
	(void) qdb_source_position_decode(data, length, &position);
	(void) qdb_transfer_answer_decode(data, length, &answer);
	while (length > 0 && qdb_manifest_entry_decode(data, length, &entry, &used) > 0)
	{
		REQUIRE(used > 0 && used <= length);
		data += used;
		length -= used;
	}
}

static void
plans(const uint8_t *data, size_t size)
{
	QdbReader	r = {.buf = data,.size = size};
	QdbPlanHeader header;
	QdbStep		step;

	if (size >= 64)
		(void) qdb_plan_header_decode(data, &header);
	while (!r.failed && r.pos < r.size)
	{
		qdb_step_decode(&r, &step);
		if (!r.failed)
			(void) qdb_plan_path_ok(step.path);
	}
}

static void
tokens(const uint8_t *data, size_t size)
{
	QdbTokenText token;
	char		text[QDB_TOKEN_TEXT_SIZE];
	char	   *copy = malloc(size + 1);

	if (copy == NULL)
		return;
	memcpy(copy, data, size);
	copy[size] = '\0';
	if (qdb_token_parse(copy, &token))
	{
		qdb_token_format(&token, text);
		REQUIRE(strcmp(text, copy) == 0);
	}
	free(copy);
}

static void
join(const uint8_t *data, size_t size)
{
	static QdbJoin join;
	static QdbJoinResult result;
	static QdbState state;
	static uint8_t again[QDB_STATE_MAX_BYTES + sizeof(QdbJoinResult)];
	uint32_t	length = sizeof(again);

	if (qdb_join_decode(data, (uint32_t) size, &join))
	{
		REQUIRE(qdb_join_encode(&join, again, &length));
		REQUIRE(length == size && memcmp(again, data, size) == 0);
	}
	length = sizeof(again);
	if (qdb_join_result_decode(data, (uint32_t) size, &result))
	{
		REQUIRE((result.member == 0) == (result.state_length == 0));
		REQUIRE(qdb_join_result_encode(&result, again, &length));
		REQUIRE(length == size && memcmp(again, data, size) == 0);
		if (result.state != NULL)
			(void) qdb_state_decode(result.state, result.state_length, &state);
	}
}

/*
 * PostgreSQL's parser leaves what it allocates to a memory context; here it is freed
 * after each body.  The linker sends its calls here (run.sh).
 */
static void *allocated[100000];
static size_t nallocated;

extern void *__real_palloc(size_t size);
extern void *__real_palloc0(size_t size);
extern char *__real_pstrdup(const char *text);
extern void *__real_repalloc(void *old, size_t size);
extern void __real_pfree(void *pointer);
void	   *__wrap_palloc(size_t size);
void	   *__wrap_palloc0(size_t size);
char	   *__wrap_pstrdup(const char *text);
void	   *__wrap_repalloc(void *old, size_t size);
void		__wrap_pfree(void *pointer);

static void *
note_allocated(void *old, void *new)
{
	size_t		i = 0;

	while (i < nallocated && allocated[i] != old)
		i++;
	REQUIRE(i < sizeof(allocated) / sizeof(allocated[0]));
	if (i == nallocated)
		nallocated++;
	allocated[i] = new;
	return new;
}

void *
__wrap_palloc(size_t size)
{
	return note_allocated(NULL, __real_palloc(size));
}

void *
__wrap_palloc0(size_t size)
{
	return note_allocated(NULL, __real_palloc0(size));
}

char *
__wrap_pstrdup(const char *text)
{
	return note_allocated(NULL, __real_pstrdup(text));
}

void *
__wrap_repalloc(void *old, size_t size)
{
	return note_allocated(old, __real_repalloc(old, size));
}

void
__wrap_pfree(void *pointer)
{
	note_allocated(pointer, NULL);
	__real_pfree(pointer);
}

static void
free_allocated(void)
{
	while (nallocated > 0)
		free(allocated[--nallocated]);
}

/* A body written anew must be read as the same. */
static void
write_body(const QdbBody *body, char *out, size_t size)
{
	size_t		used = (size_t) snprintf(out, size, "{");

	for (unsigned i = 0; i < body->nfields; i++)
	{
		const QdbBodyField *f = &body->fields[i];
		const char *texts[2] = {f->name, f->text};

		for (int k = 0; k < 2; k++)
		{
			const char *quote = k == 0 || f->kind == QDB_BODY_TEXT ? "\"" : "";

			used += (size_t) snprintf(out + used, size - used, "%s%s", k == 1 ? ":" : i > 0 ? "," : "", quote);
			if (k == 1 && f->kind == QDB_BODY_NULL)
				used += (size_t) snprintf(out + used, size - used, "null");
			if (k == 1 && f->kind == QDB_BODY_BOOL)
				used += (size_t) snprintf(out + used, size - used, f->flag ? "true" : "false");
			for (const char *p = texts[k]; *p != '\0'; p++)
				used += (size_t) snprintf(out + used, size - used, *p == '"' || *p == '\\' || (unsigned char) *p < 0x20 ?
										  "\\u%04x" : "%c", (unsigned char) *p);
			used += (size_t) snprintf(out + used, size - used, "%s", quote);
		}
	}
	snprintf(out + used, size - used, "}");
}

static void
bodies(const uint8_t *data, size_t size)
{
	static QdbBody body;
	static QdbBody second;
	static char text[QDB_BODY_MAX_FIELDS * 6 * (QDB_NAME_SIZE + QDB_VALUE_SIZE + 8)];
	const char *why;
	char	   *copy = size <= 8192 ? malloc(size + 1) : NULL;	/* a longer one is not taken */
	int64_t		n;

	if (copy == NULL)
		return;
	memcpy(copy, data, size);
	copy[size] = '\0';
	why = qdb_body_parse(copy, &body);
	if (why == NULL)
	{
		for (unsigned i = 0; i < body.nfields; i++)
		{
			const QdbBodyField *f = &body.fields[i];

			REQUIRE(strlen(f->name) < sizeof(f->name) && strlen(f->text) < sizeof(f->text));
			REQUIRE(qdb_body_field(&body, f->name) == (f->kind == QDB_BODY_NULL ? NULL : f));
			if (qdb_body_integer(f, &n))
				REQUIRE(f->kind == QDB_BODY_NUMBER && n == strtoll(f->text, NULL, 10));
			/* What was too long is no number any more. */
			if (f->too_long && f->kind == QDB_BODY_NUMBER)
				body.fields[i] = (QdbBodyField) {.name = "cut",.kind = QDB_BODY_NULL};
			body.fields[i].too_long = false;
		}
		write_body(&body, text, sizeof(text));
		if (strstr(text, "\"cut\"") == NULL)
		{
			REQUIRE(qdb_body_parse(text, &second) == NULL);
			REQUIRE(second.nfields == body.nfields);
			for (unsigned i = 0; i < body.nfields; i++)
				REQUIRE(strcmp(body.fields[i].name, second.fields[i].name) == 0 && body.fields[i].kind == second.fields[i].kind &&
						body.fields[i].flag == second.fields[i].flag && strcmp(body.fields[i].text, second.fields[i].text) == 0);
		}
	}
	else
		REQUIRE(why[0] != '\0');
	free_allocated();
	free(copy);
}

#ifndef REPLAY
int			LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	TARGET(data, size);
	return 0;
}
#else

static const struct
{
	const char *name;
	Target		target;
}			targets[] = {
	{"frames", frames}, {"commands", commands}, {"snapshots", snapshots}, {"raft", raft},
	{"streams", streams}, {"compressed", compressed}, {"transfers", transfers}, {"plans", plans},
	{"tokens", tokens}, {"join", join}, {"bodies", bodies}, {"peers", peers}, {"heartbeats", heartbeats},
	{"reads", reads}, {"proposals", proposals}, {"handshakes", handshakes}, {"settings", settings}, {"names", names}
};

#define NTARGETS	(sizeof(targets) / sizeof(targets[0]))

void
seed(const char *dir, const char *target, const char *name, const void *data, size_t size)
{
	char		path[512];
	FILE	   *file;

	snprintf(path, sizeof(path), "%s/%s/%s", dir, target, name);
	file = fopen(path, "w");
	REQUIRE(file != NULL);
	REQUIRE(fwrite(data, 1, size, file) == size);
	fclose(file);
}

/* A join, its refusal, and its answer with a state. */
static void
write_join_seeds(const char *dir, const void *state, size_t state_length)
{
	QdbJoin		join = {.command_format = QDB_COMMAND_FORMAT,.state_format = QDB_STATE_FORMAT,.token_id = 7};
	static QdbJoinResult result = {.why = "the token is not valid"};
	static uint8_t buf[QDB_STATE_MAX_BYTES + sizeof(QdbJoinResult)];
	uint32_t	n = sizeof(buf);

	strcpy(join.member.name, "n2");
	strcpy(join.member.host, "192.0.2.2");
	join.member.sql_port = 5432;
	REQUIRE(qdb_join_encode(&join, buf, &n));
	seed(dir, "join", "join", buf, n);
	n = sizeof(buf);
	REQUIRE(qdb_join_result_encode(&result, buf, &n));
	seed(dir, "join", "refusal", buf, n);
	result.member = 2;
	result.why[0] = '\0';
	strcpy(result.cert, "-----BEGIN CERTIFICATE-----\n");
	result.state = state;
	result.state_length = state_length;
	n = sizeof(buf);
	REQUIRE(qdb_join_result_encode(&result, buf, &n));
	seed(dir, "join", "result", buf, n);
}

static void
write_body_seeds(const char *dir)
{
	static const char *const seeds[][2] = {
		{"promote", "{\"node\": \"n2\", \"force\": true}"},
		{"join", "{\"role\": \"voter\", \"ttl_seconds\": 3600}\n"},
		{"escapes", "{\"webhooks\":\"http:\\/\\/h\\u00e4\\ud83d\\ude00\\n\\\"\\\\ \xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80\"}"},
		{"number", "{\"a\": -12.50e+3, \"b\": null, \"c\": 9223372036854775807, \"d\": false}"},
		{"space", " \t\r\n"},
		{"nested", "{\"a\": {\"b\": [1]}}"}};

	for (size_t i = 0; i < sizeof(seeds) / sizeof(seeds[0]); i++)
		seed(dir, "bodies", seeds[i][0], seeds[i][1], strlen(seeds[i][1]));
}

static void
write_seeds(const char *dir)
{
	static QdbState state;
	static uint8_t buf[QDB_STATE_MAX_BYTES];
	QdbCommand	command;
	QdbStreamReply reply = {.epoch = 1,.length = 34,.raw = "r"};
	QdbTokenText token = {.join = true,.id = 77};
	char		text[QDB_TOKEN_TEXT_SIZE];
	size_t		length = sizeof(buf);
	uint32_t	n;
	struct raft_message message = {.type = RAFT_REQUEST_VOTE,.server_id = 2};
	uint8_t    *bytes;

	memset(&command, 0, sizeof(command));
	command.type = QDB_CMD_INIT;
	command.time_us = 1;
	strcpy(command.text, "test");
	strcpy(command.value, "11111111-2222-3333-4444-555555555555");
	strcpy(command.member.name, "n1");
	command.member.id = command.grant.holder = command.grant.epoch = 1;
	command.grant.timeline = 1;
	qdb_state_init(&state);
	REQUIRE(qdb_state_apply(&state, &command) == QDB_OK);
	REQUIRE(qdb_state_encode(&state, buf, &length));
	seed(dir, "snapshots", "one", buf, length);
	write_join_seeds(dir, buf, length);
	write_body_seeds(dir);
	write_peer_seeds(dir);
	length = sizeof(buf);
	REQUIRE(qdb_command_encode(&command, buf, &length));
	seed(dir, "commands", "init", buf, length);
	qdb_frame_encode_header(buf + QDB_COMMAND_MAX_BYTES, QDB_FRAME_RAFT, buf, (uint32_t) length);
	memmove(buf + QDB_COMMAND_MAX_BYTES + QDB_FRAME_HEADER_SIZE, buf, length);
	seed(dir, "frames", "one", buf + QDB_COMMAND_MAX_BYTES, QDB_FRAME_HEADER_SIZE + length);
	n = sizeof(buf);
	REQUIRE(qdb_reply_encode(&reply, buf, &n));
	seed(dir, "streams", "reply", buf, n);
	for (int i = 0; i < 2; i++)
	{
		token.join = i == 0;
		qdb_token_format(&token, text);
		seed(dir, "tokens", i == 0 ? "join" : "api", text, strlen(text));
	}
	bytes = qdb_wire_encode(&message, &n);
	REQUIRE(bytes != NULL);
	seed(dir, "raft", "vote", bytes, n);
	free(bytes);
	memset(buf + 1000, 'a', 4000);
	for (int codec = QDB_CODEC_LZ4; codec <= QDB_CODEC_ZSTD; codec++)
		seed(dir, "compressed", codec == QDB_CODEC_LZ4 ? "lz4" : "zstd", buf,
			 qdb_compress((QdbCodec) codec, buf + 1000, 4000, buf, 1000));
}

static bool
run_file(const char *path)
{
	FILE	   *file = fopen(path, "r");
	uint8_t    *data = malloc(1024 * 1024);
	size_t		size;
	bool		found = false;

	REQUIRE(file != NULL && data != NULL);
	size = fread(data, 1, 1024 * 1024, file);
	fclose(file);
	for (size_t i = 0; i < NTARGETS; i++)
	{
		char		folder[64];

		snprintf(folder, sizeof(folder), "/%s/", targets[i].name);
		if (strstr(path, folder) == NULL)
			continue;
		found = true;
		targets[i].target(data, size);
		/* Every truncation, and a flipped bit in every byte. */
		for (size_t n = 0; n < size && n < 2048; n++)
		{
			uint8_t    *exact = malloc(n ? n : 1);

			REQUIRE(exact != NULL);
			memcpy(exact, data, n);
			targets[i].target(exact, n);
			free(exact);
			data[n] ^= 1 << (n % 8);
			targets[i].target(data, size);
			data[n] ^= 1 << (n % 8);
		}
	}
	free(data);
	return found;
}

int
main(int argc, char **argv)
{
	int			failed = 0;

	if (argc == 3 && strcmp(argv[1], "seeds") == 0)
	{
		write_seeds(argv[2]);
		return 0;
	}
	for (int i = 1; i < argc; i++)
	{
		bool		ok = run_file(argv[i]);

		printf("%sok %d - replay %s\n", ok ? "" : "not ", i, argv[i]);
		failed += !ok;
	}
	printf("1..%d\n", argc - 1);
	return failed != 0;
}
#endif
