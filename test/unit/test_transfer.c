/*-------------------------------------------------------------------------
 *
 * test_transfer.c
 *		Unit tests of what a clone is made of on the wire, and of what may go into the
 *		archive.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <string.h>

#include "core/archive.h"
#include "core/transfer.h"

#include "fixture.h"

#define SEG			UINT64_C(0x1000000)

static uint8_t buf[2048];
static uint32_t len;

static void
hello_and_welcome_come_back_as_sent(void)
{
	QdbFilesHello hello = {.version = QDB_TRANSFER_VERSION,.purpose = QDB_FILES_REWIND,
	.member = 3,.incarnation = 9,.boot = 2,.epoch = 7};
	QdbFilesHello back;
	QdbFilesWelcome welcome = {.system_identifier = 1,.epoch = 2,.timeline = 3,.flush = 4,.limits = {1, 2, 3, 4, 5}};
	QdbFilesWelcome got;

	strcpy(hello.cluster_id, "11111111-2222-3333-4444-555555555555");
	len = QDB_FILES_HELLO_MAX;
	CHECK(qdb_files_hello_encode(&hello, buf, &len));
	CHECK(qdb_files_hello_decode(buf, len, &back) && memcmp(&hello, &back, sizeof(back)) == 0);
	for (uint32_t cut = 0; cut < len; cut++)
		CHECK(!qdb_files_hello_decode(buf, cut, &back));
	CHECK(!qdb_files_hello_decode(buf, len + 1, &back));
	buf[4] = 3;					/* no such purpose */
	CHECK(!qdb_files_hello_decode(buf, len, &back));

	len = QDB_FILES_WELCOME_MAX;
	CHECK(qdb_files_welcome_encode(&welcome, buf, &len));
	CHECK(qdb_files_welcome_decode(buf, len, &got) && memcmp(&welcome, &got, sizeof(got)) == 0);
	for (uint32_t cut = 0; cut < len; cut++)
		CHECK(!qdb_files_welcome_decode(buf, cut, &got));
	len = 3;
	CHECK(!qdb_files_welcome_encode(&welcome, buf, &len));
}

/* One field after the other is made another one; 0: it fits all the same. */
static int
misfit_with(uint32_t *field, uint32_t value, const QdbFilesWelcome *theirs, const QdbFilesWelcome *ours)
{
	uint32_t	was = *field;
	QdbMisfit	misfit = {0};
	bool		found;

	*field = value;
	found = qdb_welcome_misfit(theirs, ours, &misfit);
	*field = was;
	return found && misfit.theirs + misfit.ours == was + value && misfit.what[0] != 0 ? (int) misfit.kind : 0;
}

static void
data_of_another_build_is_refused(void)
{
	QdbFilesWelcome theirs = {.control_version = 1300,.catalog_version = 202209061,.block_size = 8192,
	.segment_blocks = 131072,.wal_block_size = 8192,.wal_segment_size = 1 << 24,.limits = {100, 8, 10, 0, 64}};
	QdbFilesWelcome ours = theirs;
	QdbMisfit	misfit;

	CHECK(!qdb_welcome_misfit(&theirs, &ours, &misfit));
	CHECK(misfit_with(&theirs.control_version, 1301, &theirs, &ours) == QDB_MISFIT_BUILD);
	CHECK(misfit_with(&theirs.catalog_version, 202209062, &theirs, &ours) == QDB_MISFIT_BUILD);
	CHECK(misfit_with(&theirs.block_size, 16384, &theirs, &ours) == QDB_MISFIT_BUILD);
	CHECK(misfit_with(&theirs.segment_blocks, 65536, &theirs, &ours) == QDB_MISFIT_BUILD);
	CHECK(misfit_with(&theirs.wal_block_size, 16384, &theirs, &ours) == QDB_MISFIT_BUILD);
	CHECK(misfit_with(&theirs.wal_segment_size, 1 << 20, &theirs, &ours) == QDB_MISFIT_INITDB);
	for (int i = 0; i < QDB_NLIMITS; i++)
	{
		CHECK(misfit_with(&theirs.limits[i], theirs.limits[i] + 1, &theirs, &ours) == QDB_MISFIT_LIMIT);
		CHECK(misfit_with(&ours.limits[i], ours.limits[i] + 1, &theirs, &ours) == 0);
	}
	theirs.system_identifier = theirs.epoch = theirs.flush = theirs.timeline = 5;
	CHECK(!qdb_welcome_misfit(&theirs, &ours, &misfit));
}

static bool
comes_back(const QdbTransferRequest *request)
{
	QdbTransferRequest back;

	len = QDB_FILES_REQUEST_MAX;
	if (!qdb_transfer_request_encode(request, buf, &len) ||
		!qdb_transfer_request_decode(buf, len, &back) || memcmp(request, &back, sizeof(back)) != 0)
		return false;
	for (uint32_t cut = 0; cut < len; cut++)
	{
		if (qdb_transfer_request_decode(buf, cut, &back))
			return false;
	}
	return !qdb_transfer_request_decode(buf, len + 1, &back);
}

static void
requests_come_back_as_sent(void)
{
	QdbRelationName relation = {.tablespace = 1663,.database = 5,.relation = 16384,.fork = 1,.segment = 2};
	QdbTransferRequest r = {.kind = QDB_TRANSFER_MANIFEST,.flag = true,.lsn = 77};

	CHECK(comes_back(&r));
	r = (QdbTransferRequest) {.kind = QDB_TRANSFER_READ_MANIFEST,.offset = 5,.length = 6};
	CHECK(comes_back(&r));
	r = (QdbTransferRequest) {.kind = QDB_TRANSFER_FILE,.id = 4,.offset = 5,.length = 6};
	CHECK(comes_back(&r));
	r = (QdbTransferRequest) {.kind = QDB_TRANSFER_RELATION,.relation = relation,.offset = 5,.length = 6};
	CHECK(comes_back(&r));
	r = (QdbTransferRequest) {.kind = QDB_TRANSFER_WAL,.timeline = 3,.lsn = 8,.length = 9};
	CHECK(comes_back(&r));
	r = (QdbTransferRequest) {.kind = QDB_TRANSFER_HISTORY,.timeline = 3};
	CHECK(comes_back(&r));
	r = (QdbTransferRequest) {.kind = QDB_TRANSFER_POSITION};
	CHECK(comes_back(&r));
	relation.segment = 0;
	r = (QdbTransferRequest) {.kind = QDB_TRANSFER_BLOCKS,.relation = relation,.nblocks = 3,.blocks = {1, 2, 9}};
	CHECK(comes_back(&r));
}

static bool
is_refused(QdbTransferRequest *request)
{
	QdbTransferRequest back;

	len = sizeof(buf);
	return !qdb_transfer_request_encode(request, buf, &len) || !qdb_transfer_request_decode(buf, len, &back);
}

static void
requests_out_of_bounds_are_refused(void)
{
	QdbRelationName relation = {.tablespace = 1663,.database = 5,.relation = 16384};
	QdbTransferRequest r = {.kind = 0};

	CHECK(is_refused(&r));
	r.kind = QDB_TRANSFER_POSITION + 1;
	CHECK(is_refused(&r));
	r = (QdbTransferRequest) {.kind = QDB_TRANSFER_RELATION,.relation = relation,.length = 0};
	CHECK(is_refused(&r));
	r.length = QDB_TRANSFER_CHUNK + 1;
	CHECK(is_refused(&r));
	r.length = 1;
	r.offset = UINT64_MAX;
	CHECK(is_refused(&r));
	r.offset = 0;
	r.relation.fork = 4;
	CHECK(is_refused(&r));
	r.relation.fork = 0;
	r.relation.database = 0;	/* only where shared relations are */
	CHECK(is_refused(&r));
	r = (QdbTransferRequest) {.kind = QDB_TRANSFER_BLOCKS,.relation = relation,.nblocks = QDB_TRANSFER_MAX_BLOCKS + 1};
	CHECK(is_refused(&r));
}

static void
answers_name_their_request(void)
{
	QdbTransferAnswer answer;

	qdb_transfer_answer_begin(buf, 12, QDB_TRANSFER_OK, 5);
	buf[QDB_TRANSFER_ANSWER_HEADER] = 'x';
	CHECK(qdb_transfer_answer_decode(buf, QDB_TRANSFER_ANSWER_HEADER + 1, &answer));
	CHECK(answer.number == 12 && answer.mask == 5 && answer.length == 1 && answer.data[0] == 'x');
	CHECK(!qdb_transfer_answer_decode(buf, QDB_TRANSFER_ANSWER_HEADER - 1, &answer));
	CHECK(!qdb_transfer_answer_decode(buf, QDB_TRANSFER_ANSWER_HEADER + QDB_TRANSFER_CHUNK + 1, &answer));
	qdb_transfer_answer_begin(buf, 12, QDB_TRANSFER_FAILED + 1, 0);
	CHECK(!qdb_transfer_answer_decode(buf, QDB_TRANSFER_ANSWER_HEADER, &answer));
}

static void
manifests_bring_no_path_from_outside(void)
{
	static const char *const good[] = {"base", "base/5/pg_filenode.map", "pg_xact/0000", "PG_VERSION", "pg_twophase/00000001"};
	static const char *const bad[] = {"", "/etc/passwd", "../base", "base/../../x", "base//5", "base/./5",
		"postgresql.conf", "quantadb/identity", "pg_wal/000000010000000000000001", "global/pg_control",
		"base/5/pgsql_tmp1", "base/5/a\nb", "pg_replslot/x", "base\\5"};
	QdbManifestEntry entry = {.kind = QDB_ENTRY_FILE,.id = 1,.mode = 0600,.size = 3};
	QdbManifestEntry back;
	uint32_t	used;

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		CHECK(qdb_served_path_ok(good[i]));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
	{
		CHECK(!qdb_served_path_ok(bad[i]));
		strcpy(entry.path, bad[i]);
		len = QDB_MANIFEST_ENTRY_MAX;
		CHECK(!qdb_manifest_entry_encode(&entry, buf, &len) ||
			  qdb_manifest_entry_decode(buf, len, &back, &used) == -1);
	}
	strcpy(entry.path, good[1]);
	len = QDB_MANIFEST_ENTRY_MAX;
	CHECK(qdb_manifest_entry_encode(&entry, buf, &len));
	CHECK(qdb_manifest_entry_decode(buf, len, &back, &used) == 1 && used == len);
	CHECK(back.size == 3 && back.mode == 0600 && strcmp(back.path, entry.path) == 0);
	for (uint32_t cut = 0; cut < len; cut++)
		CHECK(qdb_manifest_entry_decode(buf, cut, &back, &used) == 0);
	entry = (QdbManifestEntry) {.kind = QDB_ENTRY_LOCALE,.path = "en_US.UTF-8"};
	len = QDB_MANIFEST_ENTRY_MAX;
	CHECK(qdb_manifest_entry_encode(&entry, buf, &len));
	CHECK(qdb_manifest_entry_decode(buf, len, &back, &used) == 1 && strcmp(back.path, entry.path) == 0);
}

/* Epoch 5 on timeline 6 out of 3 at 2.5 segments; 4 was never opened, 5 was. */
static QdbArchiveView
set_up(void)
{
	qdb_state_init(&s);
	s.epoch = 5;
	s.ngrants = 4;
	s.grants[0] = (QdbGrant) {.epoch = 1,.timeline = 3,.fork = 0x1000,.opened = true};
	s.grants[1] = (QdbGrant) {.epoch = 2,.timeline = 4,.parent_timeline = 3,.fork = 2 * SEG};
	s.grants[2] = (QdbGrant) {.epoch = 3,.timeline = 5,.parent_timeline = 3,.fork = 2 * SEG,.opened = true};
	s.grants[3] = (QdbGrant) {.epoch = 5,.timeline = 6,.parent_timeline = 3,.fork = 2 * SEG + SEG / 2,.opened = true};
	return (QdbArchiveView) {.open_epoch = 5,.quorum_epoch = 5,.quorum_lsn = 5 * SEG,.archived = SEG};
}

static QdbArchiveVerdict
judge(const QdbArchiveView *view, const char *name)
{
	QdbArchiveFile file;

	if (!qdb_archive_file_parse(name, SEG, &file))
		return (QdbArchiveVerdict) -1;
	return qdb_judge_archive(&s, view, &file);
}

static void
archive_takes_what_a_quorum_has(void)
{
	QdbArchiveView view = set_up();

	CHECK(judge(&view, "000000060000000000000004") == QDB_ARCHIVE_NOW);
	CHECK(judge(&view, "000000060000000000000005") == QDB_ARCHIVE_WAIT);
	view.quorum_epoch = 3;
	CHECK(judge(&view, "000000060000000000000004") == QDB_ARCHIVE_WAIT);
	view.quorum_epoch = 5;
	view.open_epoch = 0;		/* fenced, or a replica */
	CHECK(judge(&view, "000000060000000000000004") == QDB_ARCHIVE_WAIT);
	CHECK(judge(&view, "00000006.history") == QDB_ARCHIVE_WAIT);
	view.open_epoch = 3;		/* the seat has moved on */
	CHECK(judge(&view, "000000060000000000000004") == QDB_ARCHIVE_WAIT);
}

static void
archive_never_takes_what_was_taken_back(void)
{
	QdbArchiveView view = set_up();

	CHECK(judge(&view, "000000030000000000000001") == QDB_ARCHIVE_NOW);
	CHECK(judge(&view, "000000030000000000000000") == QDB_ARCHIVE_NEVER);	/* it is there */
	CHECK(judge(&view, "000000030000000000000002") == QDB_ARCHIVE_NEVER);	/* beyond the fork */
	CHECK(judge(&view, "000000030000000000000002.partial") == QDB_ARCHIVE_NOW);
	CHECK(judge(&view, "000000030000000000000003.partial") == QDB_ARCHIVE_NEVER);
	CHECK(judge(&view, "000000050000000000000002") == QDB_ARCHIVE_NEVER);	/* a dead timeline */
	CHECK(judge(&view, "00000005.history") == QDB_ARCHIVE_NEVER);
	CHECK(judge(&view, "00000006.history") == QDB_ARCHIVE_NOW);
	CHECK(judge(&view, "000000020000000000000002") == QDB_ARCHIVE_NOW); /* before the cluster */
	CHECK(judge(&view, "000000060000000000000004.00000028.backup") == QDB_ARCHIVE_NOW);
}

/*
 * As many failovers as the state keeps grants, one each after a quarter of a segment, and more:
 * what it has dropped is not taken for the time before the cluster.
 */
static void
archive_remembers_more_than_the_grants(void)
{
	QdbArchiveView view = set_up();
	QdbArchiveFile file;

	s.ngrants = QDB_MAX_GRANTS;
	for (uint32_t i = 0; i < QDB_MAX_GRANTS; i++)
		s.grants[i] = (QdbGrant) {.epoch = 10 + i,.timeline = 12 + i,.parent_timeline = 11 + i,.fork = 2 * SEG + SEG / 4 * i,.opened = true};
	s.epoch = view.open_epoch = view.quorum_epoch = 9 + QDB_MAX_GRANTS;
	view.quorum_lsn = 100 * SEG;
	/* Timeline 5 died; 4 was left in the third segment. */
	CHECK(judge(&view, "000000050000000000000002") == QDB_ARCHIVE_NEVER);
	CHECK(judge(&view, "00000005.history") == QDB_ARCHIVE_NEVER);
	CHECK(qdb_archive_file_parse("000000040000000000000002", SEG, &file));
	CHECK(qdb_archive_asks_history(&s, &file));
	file.history_end = 2 * SEG + SEG / 2;
	CHECK(qdb_judge_archive(&s, &view, &file) == QDB_ARCHIVE_NEVER);
	file.kind = QDB_ARCHIVE_PARTIAL;
	CHECK(qdb_judge_archive(&s, &view, &file) == QDB_ARCHIVE_NOW);
	CHECK(qdb_archive_file_parse("000000040000000000000001", SEG, &file));
	file.history_end = 2 * SEG + SEG / 2;
	CHECK(qdb_judge_archive(&s, &view, &file) == QDB_ARCHIVE_NOW);
	view.archived = 2 * SEG;
	CHECK(qdb_judge_archive(&s, &view, &file) == QDB_ARCHIVE_NEVER);
	CHECK(qdb_archive_file_parse("0000000C0000000000000002", SEG, &file));
	CHECK(!qdb_archive_asks_history(&s, &file));	/* the oldest that is kept */
}

static void
archive_fills_gaps_only(void)
{
	(void) set_up();
	CHECK(qdb_archive_is_gap(&s, 6, 4));
	CHECK(!qdb_archive_is_gap(&s, 6, 5));	/* its holder may have archived it */
	CHECK(!qdb_archive_is_gap(&s, 6, 3));
	CHECK(!qdb_archive_is_gap(&s, 6, 6));
	CHECK(!qdb_archive_is_gap(&s, 9, 8));
}

static void
archive_knows_its_names(void)
{
	static const char *const bad[] = {"", "0000000", "00000001", "00000000.history", "00000001.histor", "xlogtemp.12",
		"00000001000000000000000", "0000000100000000000001FF1", "000000010000000000000100", "000000010000000000000001.par",
		"00000001000000000000000a", "000000010000000000000001.0000028.backup"};
	QdbArchiveFile file;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CHECK(!qdb_archive_file_parse(bad[i], SEG, &file));
	CHECK(qdb_archive_file_parse("0000000A00000002000000FF", SEG, &file));
	CHECK(file.timeline == 10 && file.begin == UINT64_C(0x2FF000000) && file.end == UINT64_C(0x300000000));
}

static const Test tests[] = {
	TEST(hello_and_welcome_come_back_as_sent),
	TEST(data_of_another_build_is_refused),
	TEST(requests_come_back_as_sent),
	TEST(requests_out_of_bounds_are_refused),
	TEST(answers_name_their_request),
	TEST(manifests_bring_no_path_from_outside),
	TEST(archive_takes_what_a_quorum_has),
	TEST(archive_never_takes_what_was_taken_back),
	TEST(archive_remembers_more_than_the_grants),
	TEST(archive_fills_gaps_only),
	TEST(archive_knows_its_names),
};

int
main(void)
{
	return run_tests(tests, (int) (sizeof(tests) / sizeof(tests[0])));
}
