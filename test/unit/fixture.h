/*-------------------------------------------------------------------------
 *
 * fixture.h
 *		What the unit tests of src/core share: checks, a cluster to begin with,
 *		and the runner.  Included once by each test program.
 *
 * Prints TAP.  A failed check says its line; the exit status is 1 then.
 *
 *-------------------------------------------------------------------------
 */
#ifndef QDB_TEST_FIXTURE_H
#define QDB_TEST_FIXTURE_H

#define UNUSED		__attribute__((unused))
#define TEST(name)	{#name, name}
#define MS			1000
#define NOW			(100 * 1000 * MS)
#define CHECK(x)	do { if (!(x)) { printf("# line %d: %s\n", __LINE__, #x); failed = true; } } while (0)
#define APPLY(r)	CHECK(qdb_state_apply(&s, &c) == (r))

static bool failed;
static QdbState s;
static QdbCommand c;

UNUSED static void
command(uint8_t type)
{
	memset(&c, 0, sizeof(c));
	c.type = type;
	c.time_us = 1000;
}

UNUSED static void
init_cluster(void)
{
	qdb_state_init(&s);
	command(QDB_CMD_INIT);
	strcpy(c.text, "test");
	strcpy(c.value, "11111111-2222-3333-4444-555555555555");
	strcpy(c.member.name, "n1");
	c.system_identifier = 77;
	c.member.id = c.grant.holder = c.grant.epoch = 1;
	c.member.incarnation = c.grant.incarnation = 101;
	c.member.priority = 100;
	c.grant.timeline = 1;
	c.grant.boot = 1;
	c.grant.fork = 0x1000;
	APPLY(QDB_OK);
}

UNUSED static void
add_token(uint64_t id, uint8_t role)
{
	command(QDB_CMD_TOKEN_ADD);
	c.token.id = id;
	c.token.secret_hash[0] = (uint8_t) id;
	c.token.role = role;
	c.token.expires_us = 5000;
}

UNUSED static void
add_member(uint64_t id)
{
	add_token(id, QDB_ROLE_VOTER);
	APPLY(QDB_OK);
	command(QDB_CMD_MEMBER_ADD);
	c.member.id = id;
	c.member.incarnation = 100 + id;
	c.member.priority = 100;
	snprintf(c.member.name, sizeof(c.member.name), "n%d", (int) id);
	c.token.id = id;
	c.token.secret_hash[0] = (uint8_t) id;
}

UNUSED static void
set_role(uint64_t id, uint8_t role)
{
	command(QDB_CMD_MEMBER_ROLE);
	c.member.id = id;
	c.member.role = role;
	c.membership = s.membership;
}

UNUSED static void
close_change(void)
{
	command(QDB_CMD_MEMBERSHIP_CLOSE);
	c.membership = s.membership;
}

UNUSED static void
make_cluster(uint64_t n)
{
	init_cluster();
	for (uint64_t id = 2; id <= n; id++)
	{
		add_member(id);
		APPLY(QDB_OK);
		set_role(id, QDB_ROLE_VOTER);
		APPLY(QDB_OK);
		close_change();
		APPLY(QDB_OK);
	}
}

UNUSED static void
open_epoch(void)
{
	command(QDB_CMD_OPEN_EPOCH);
	c.epoch = s.epoch + 1;
	APPLY(QDB_OK);
}

UNUSED static void
report(uint64_t member, uint64_t epoch, uint64_t lsn)
{
	const QdbGrant *g = qdb_grant_of_epoch(&s, epoch);

	command(QDB_CMD_REPORT);
	c.epoch = s.epoch;
	c.report = (QdbReport) {member, 100 + member, 1, epoch, g == NULL ? 0 : g->timeline, lsn};
}

UNUSED static bool
anyone(uint64_t member, void *arg)
{
	return arg == NULL || *(uint64_t *) arg != member;
}

/* A SEAT command for the given member, from its report. */
UNUSED static void
seat(uint64_t member)
{
	QdbReport	r = {0};

	if (qdb_report_of(&s, member) != NULL)
		r = *qdb_report_of(&s, member);
	command(QDB_CMD_SEAT);
	c.grant = (QdbGrant) {s.epoch, s.greatest_timeline + 1, r.last_timeline, r.end_lsn, member,
	r.incarnation, r.boot, false, 400};
}

typedef struct Test
{
	const char *name;
	void		(*run) (void);
} Test;

static int
run_tests(const Test *tests, int ntests)
{
	int			nfailed = 0;

	printf("1..%d\n", ntests);
	for (int i = 0; i < ntests; i++)
	{
		failed = false;
		tests[i].run();
		printf("%sok %d - %s\n", failed ? "not " : "", i + 1, tests[i].name);
		nfailed += failed;
	}
	printf("# %d of %d tests passed\n", ntests - nfailed, ntests);
	return nfailed == 0 ? 0 : 1;
}

#endif							/* QDB_TEST_FIXTURE_H */
