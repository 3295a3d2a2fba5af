# ChaosLoad.pm
#	Clients of a chaos run.  Each is a process with one connection and does one
#	kind of operation until it is told to stop.
#
# Every operation leaves two lines in its client's history: "invoke" before
# anything is sent, "ok", "fail" or "unknown" after.  "fail" means that the
# server said the transaction did not commit; whatever is in doubt (a connection
# that broke or stood still while COMMIT was under way) is "unknown".  A client
# that is killed leaves an invoke without an end, which is unknown too.
#
# A line: kind of operation, client, sequence number, event, time, then the
# operation in words of its kind, tab separated.
package ChaosLoad;

use strict;
use warnings;
use DBI;
use DBD::Pg qw(:async);
use POSIX ();
use Time::HiRes qw(time sleep);

use constant { ACCOUNTS => 8, BALANCE => 100, KEYS => 6, REGISTERS => 4 };

our %kinds = (
	unique => { setup => \&setup_unique, step => \&step_unique },
	bank => { setup => \&setup_bank, step => \&step_bank },
	audit => { setup => undef, step => \&step_audit },
	lists => { setup => \&setup_lists, step => \&step_lists },
	lists_read => { setup => undef, step => \&step_lists_read },
	register => { setup => \&setup_register, step => \&step_register },
	sequence => { setup => \&setup_sequence, step => \&step_sequence },
	two_phase => { setup => \&setup_two_phase, step => \&step_two_phase });

# ---- one connection ----

# Nothing in libpq ends a wait for a server that stands still, so queries are
# asynchronous and we wait for the socket ourselves.
sub query
{
	my ($client, $sql, $timeout) = @_;
	my $dbh = $client->{dbh};
	my $until = time + ($timeout || 8);
	my $sth = $dbh->prepare($sql, { pg_async => PG_ASYNC, pg_server_prepare => 0, pg_direct => 1 });
	$sth->execute;
	until ($dbh->pg_ready)
	{
		my $left = $until - time;
		die "timed out\n" if $left <= 0;
		my $bits = '';
		vec($bits, $dbh->{pg_socket}, 1) = 1;
		select($bits, undef, undef, $left > 0.5 ? 0.5 : $left);
	}
	$dbh->pg_result;
	return $sth->{NUM_OF_FIELDS} ? $sth->fetchall_arrayref : [];
}

sub connect_client
{
	my ($client) = @_;
	$client->{dbh} = DBI->connect("dbi:Pg:$client->{conninfo}", '', '',
		{ RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, AutoInactiveDestroy => 1 });
	# A commit that is not on a quorum must not be cut short; the wait is ours to end.
	query($client, $_) for @{ $client->{session} || [] };
}

# ---- history ----

sub record
{
	my ($client, $event, @words) = @_;
	printf { $client->{log} } "%s\n",
	  join("\t", $client->{kind}, $client->{id}, $client->{sequence}, $event,
		sprintf('%.6f', time), @words);
}

# Runs the statements as one transaction.  Returns what body returned.
#
# State after a die of the body or of COMMIT: fail, unless the answer to COMMIT
# is in doubt.  SQLSTATE 08*, 57P* and none at all (the connection broke) tell
# nothing about a COMMIT that was sent.
sub transaction
{
	my ($client, $begin, $body, @words) = @_;
	$client->{sequence}++;
	record($client, 'invoke', @words);
	my $sent = 0;
	my @result = eval {
		query($client, $begin);
		my @r = $body->();
		$sent = 1;
		query($client, $client->{commit} || 'COMMIT');
		@r;
	};
	if (my $error = $@)
	{
		my $sqlstate = $client->{dbh} ? ($client->{dbh}->state || '') : '';
		my $broken = $error =~ /timed out/ || $sqlstate eq '' || $sqlstate =~ /^(08|57P|22000|S)/;
		$error =~ s/\s+/ /g;
		record($client, $sent && $broken ? 'unknown' : 'fail', @words, "$sqlstate $error");
		if ($broken || $sqlstate =~ /^(25006|57|XX)/)
		{
			$client->{dbh} = undef;
		}
		else
		{
			eval { query($client, 'ROLLBACK') } or $client->{dbh} = undef;
		}
		return undef;
	}
	record($client, 'ok', @words, @result);
	return 1;
}

# ---- kinds ----

sub setup_unique { return 'CREATE TABLE uniq (x bigint PRIMARY KEY, pad text)' }

sub step_unique
{
	my ($client) = @_;
	my $x = $client->{id} * 10_000_000 + $client->{sequence} + 1;
	transaction($client, 'BEGIN',
		sub { query($client, "INSERT INTO uniq VALUES ($x, repeat('x', 200))"); () }, $x);
}

sub setup_bank
{
	return 'CREATE TABLE bank (id int PRIMARY KEY, balance int NOT NULL)',
	  'INSERT INTO bank SELECT i, ' . BALANCE . ' FROM generate_series(1, ' . ACCOUNTS . ') i';
}

sub step_bank
{
	my ($client) = @_;
	my ($from, $to) = (1 + int(rand(ACCOUNTS)), 1 + int(rand(ACCOUNTS)));
	return if $from == $to;
	my $amount = 1 + int(rand(5));
	transaction($client, 'BEGIN',
		sub {
			# In the order of ids: no deadlocks among clients.
			my @steps = ([ $from, -$amount ], [ $to, $amount ]);
			query($client, "UPDATE bank SET balance = balance + ($_->[1]) WHERE id = $_->[0]")
			  for sort { $a->[0] <=> $b->[0] } @steps;
			();
		}, "$from>$to:$amount");
}

# The sum as one snapshot of one node sees it.
sub step_audit
{
	my ($client) = @_;
	transaction($client, 'BEGIN READ ONLY',
		sub {
			my $rows = query($client, 'SELECT sum(balance), count(*) FROM bank');
			return join(',', map { defined $_ ? $_ : '' } @{ $rows->[0] });
		}, $client->{node});
}

sub setup_lists
{
	return 'CREATE TABLE lists (k bigint PRIMARY KEY, v text NOT NULL)';
}

# Lists that grow for ever would make every read longer than the last: every few seconds
# all clients go on to new ones.
sub list_base { return KEYS * int(time / 5) }

# A few reads and appends in one transaction.  Words: "r k list" and "a k x".
sub step_lists
{
	my ($client) = @_;
	my @plan;
	for my $i (0 .. int(rand(4)))
	{
		my $k = list_base() + int(rand(KEYS));
		push @plan, rand() < 0.5 ? [ 'r', $k ] : [ 'a', $k, $client->{id} * 1_000_000 + $client->{sequence} * 10 + $i ];
	}
	my $level = $client->{isolation} || 'SERIALIZABLE';
	transaction($client, "BEGIN ISOLATION LEVEL $level",
		sub {
			my @done;
			for my $op (@plan)
			{
				if ($op->[0] eq 'r')
				{
					my $rows = query($client, "SELECT v FROM lists WHERE k = $op->[1]");
					push @done, "r $op->[1] " . (@$rows ? $rows->[0][0] : '');
				}
				else
				{
					query($client, "INSERT INTO lists VALUES ($op->[1], ',$op->[2]')
						ON CONFLICT (k) DO UPDATE SET v = lists.v || excluded.v");
				}
			}
			return join(';', @done);
		}, join(';', map { join(' ', @$_) } @plan));
}

# The present lists in one snapshot of one node.
sub step_lists_read
{
	my ($client) = @_;
	transaction($client, 'BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY',
		sub {
			my $base = list_base();
			my %v = map { $_->[0] => $_->[1] }
			  @{ query($client, "SELECT k, v FROM lists WHERE k BETWEEN $base AND $base + @{[KEYS - 1]}") };
			return join(';', map { "r $_ " . (defined $v{$_} ? $v{$_} : '') } $base .. $base + KEYS - 1);
		}, $client->{node});
}

sub setup_register
{
	return 'CREATE TABLE register (k int PRIMARY KEY, version bigint NOT NULL, value bigint NOT NULL)',
	  'INSERT INTO register SELECT i, 0, 0 FROM generate_series(1, ' . REGISTERS . ') i';
}

# Words: "r k" or "w k value"; the answer is "version value".
sub step_register
{
	my ($client) = @_;
	my $k = 1 + int(rand(REGISTERS));
	if ($client->{node} || rand() < 0.5)
	{
		transaction($client, 'BEGIN READ ONLY',
			sub {
				my $rows = query($client, "SELECT version, value FROM register WHERE k = $k");
				return join(' ', @{ $rows->[0] });
			}, "r $k");
		return;
	}
	my $value = $client->{id} * 10_000_000 + $client->{sequence} + 1;
	transaction($client, 'BEGIN',
		sub {
			my $rows = query($client,
				"UPDATE register SET version = version + 1, value = $value WHERE k = $k RETURNING version");
			return "$rows->[0][0] $value";
		}, "w $k $value");
}

sub setup_sequence { return 'CREATE SEQUENCE s', 'CREATE TABLE drawn (x bigint PRIMARY KEY, client text)' }

# A number that was drawn and acknowledged is never drawn again.
sub step_sequence
{
	my ($client) = @_;
	my $name = "$client->{id}/" . ($client->{sequence} + 1);
	transaction($client, 'BEGIN',
		sub { return query($client, "INSERT INTO drawn VALUES (nextval('s'), '$name') RETURNING x")->[0][0] }, $name);
}

sub setup_two_phase { return 'CREATE TABLE prepared (x bigint PRIMARY KEY)' }

# COMMIT PREPARED is what acknowledges; a prepared transaction that is left over is
# finished by whoever finds it, so its outcome stays unknown.
sub step_two_phase
{
	my ($client) = @_;
	my $x = $client->{id} * 10_000_000 + $client->{sequence} + 1;
	$client->{commit} = "COMMIT PREPARED 'p$x'";
	transaction($client, 'BEGIN',
		sub {
			query($client, "INSERT INTO prepared VALUES ($x)");
			query($client, "PREPARE TRANSACTION 'p$x'");
			();
		}, $x);
}

# ---- processes ----

# Starts one client; %client: id, kind, conninfo, node (of readers), session
# (statements after connecting), isolation.
sub start
{
	my ($dir, %client) = @_;
	my $pid = fork();
	die "fork: $!" unless defined $pid;
	return $pid if $pid;

	my $stop = 0;
	$SIG{TERM} = sub { $stop = 1 };
	$SIG{INT} = 'IGNORE';
	srand($client{id} * 7919 + ($client{seed} || 0));
	open(my $log, '>>', sprintf('%s/history.%03d', $dir, $client{id})) or POSIX::_exit(1);
	$log->autoflush(1);
	# What DBD::Pg and libpq say of a broken connection is in the history already.
	local $SIG{__WARN__} = sub { };
	open(STDERR, '>', '/dev/null');
	$client{log} = $log;
	$client{sequence} = 0;
	until ($stop)
	{
		unless ($client{dbh})
		{
			eval { connect_client(\%client); 1 } or do { $client{dbh} = undef; sleep 0.05; next };
		}
		$kinds{ $client{kind} }{step}->(\%client);
		sleep $client{pause} if $client{pause};
	}
	POSIX::_exit(0);
}

1;
