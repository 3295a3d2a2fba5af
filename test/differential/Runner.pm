# Runner.pm
#	Runs a script of several sessions in one database and writes down what happened.
#
# One step is sent at a time.  Then every session that is busy must either answer or
# wait for a lock; which of the two is part of the trace.  pg_locks tells it exactly:
# whoever ends a transaction has granted the locks of those who waited before its own
# answer arrives.  A wait counts only after it has outlived deadlock_timeout, so that
# who becomes a deadlock's victim does not depend on the next step.
package Runner;

use strict;
use warnings;
use DBI;
use DBD::Pg qw(:async);
use IO::Select;
use Time::HiRes qw(time);

use constant DEADLOCK_MS => 10;
use constant SETTLED_MS => 50;
use constant HANG_S => 60;

# new(host, port, db, am, tamper)
sub new
{
	my ($class, %args) = @_;
	return bless {%args}, $class;
}

sub connect_to
{
	my ($self) = @_;
	return DBI->connect("dbi:Pg:dbname=$self->{db};host=$self->{host};port=$self->{port}", 'postgres', '',
		{ AutoCommit => 1, PrintError => 0, PrintWarn => 0, RaiseError => 0, pg_server_prepare => 0, pg_expand_array => 0 })
	  || die "crash: cannot connect: $DBI::errstr";
}

sub must
{
	my ($dbh, $sql) = @_;
	defined $dbh->do($sql, { pg_direct => 1 }) or die "crash: $sql: " . $dbh->errstr;
}

# The same rows by every way to read them, under the caller's snapshot.
my $every_way = q{CREATE FUNCTION every_way(q text, OUT way text, OUT n bigint, OUT md5 text) RETURNS SETOF record
LANGUAGE plpgsql STABLE SET enable_seqscan = on SET enable_indexscan = on SET enable_indexonlyscan = on SET enable_bitmapscan = on
SET enable_tidscan = on SET max_parallel_workers_per_gather = 0 SET parallel_setup_cost = 0 SET parallel_tuple_cost = 0
SET min_parallel_table_scan_size = 0 SET min_parallel_index_scan_size = 0 AS $$
BEGIN
	FOREACH way IN ARRAY ARRAY['seqscan', 'indexscan', 'bitmapscan', 'parallel'] LOOP
		PERFORM set_config('enable_' || s, CASE WHEN s = way OR way = 'parallel' AND s = 'seqscan' THEN 'on' ELSE 'off' END, true)
		FROM unnest(ARRAY['seqscan', 'indexscan', 'bitmapscan']) s;
		PERFORM set_config('max_parallel_workers_per_gather', CASE way WHEN 'parallel' THEN '2' ELSE '0' END, true);
		EXECUTE 'SELECT count(*), md5(string_agg(x, ''|'' ORDER BY x COLLATE "C")) FROM (' || q || ') s(x)' INTO n, md5;
		RETURN NEXT;
	END LOOP;
END $$};

# A corruption on purpose, to see that the comparison finds it.
my @tampering = (
	q{CREATE FUNCTION tamper() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF NEW.id % 7 = 3 THEN NEW.k := OLD.k; END IF; RETURN NEW; END'},
	'CREATE TRIGGER zz_tamper BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION tamper()');

sub prepare
{
	my ($self, $script) = @_;
	my $m = $self->{monitor} = $self->connect_to;
	must($m, 'SET client_min_messages = error');
	my ($old) = $m->selectcol_arrayref('SELECT gid FROM pg_prepared_xacts WHERE database = current_database()');
	must($m, "ROLLBACK PREPARED '$_'") for @$old;
	must($m, 'DROP SCHEMA IF EXISTS w CASCADE');
	must($m, $_) for 'CREATE SCHEMA w', 'SET search_path = w, public', "SET default_table_access_method = $self->{am}", $every_way;
	must($m, $_) for @{$script->{setup}};
	if ($self->{tamper}) { must($m, $_) for @tampering }
	for my $n (1 .. $script->{sessions})
	{
		my $dbh = $self->connect_to;
		must($dbh, "SET $_") for 'search_path = w, public', "default_table_access_method = $self->{am}", 'client_min_messages = error',
		  'enable_seqscan = off', 'enable_bitmapscan = off', 'enable_hashjoin = off', 'enable_mergejoin = off', 'enable_sort = on',
		  'max_parallel_workers_per_gather = 0', 'jit = off', 'deadlock_timeout = ' . DEADLOCK_MS;
		$self->{session}[$n] = { n => $n, dbh => $dbh, pid => $dbh->{pg_pid}, in => 0, failed => 0, timeout => 0 };
	}
}

sub send_sql
{
	my ($self, $me, $sql) = @_;
	$sql =~ s/\@DB\@/$self->{db}/g;
	my $sth = $me->{dbh}->prepare($sql, { pg_direct => 1, pg_async => PG_ASYNC });
	$sth->execute;
	@$me{qw(sth sql since)} = ($sth, $sql, time);
	delete $me->{waiting};
}

sub text_of
{
	my ($rows) = @_;
	my $text = join ' ', sort map { '(' . join(',', map { defined $_ ? $_ : 'null' } @$_) . ')' } @$rows;
	return length $text > 600 ? substr($text, 0, 400) . '... ' . length $text : $text;
}

# The answer of a statement that has one.
sub collect
{
	my ($me) = @_;
	my $sth = delete $me->{sth};
	my $rows = $sth->pg_result;
	my $sql = $me->{sql};
	my $answer;
	if (!defined $rows || $me->{dbh}->err)
	{
		my $state = $me->{dbh}->state || '?';
		my ($message) = split /\n/, $me->{dbh}->errstr || '?';
		die "crash: s$me->{n}: $sql: $message" if $state =~ /^(57P0[12]|08|S8006|22000)/ && $message =~ /closed|terminat|crash|connection/;
		$answer = "$state $message";
		$me->{failed} = 1 if $me->{in};
	}
	else
	{
		my $all = $sth->{NUM_OF_FIELDS} ? $sth->fetchall_arrayref : undef;
		$answer = $all ? @$all . ' rows ' . text_of($all) : $rows + 0;
		if ($sql =~ /^BEGIN/) { @$me{qw(in failed)} = (1, 0) }
		elsif ($sql =~ /^ROLLBACK TO/) { $me->{failed} = 0 }
		elsif ($sql =~ /^SET lock_timeout = '(\d+)/) { $me->{timeout} = $1 }
	}
	# These end the transaction also when they fail.
	if ($sql =~ /^(COMMIT|ROLLBACK|PREPARE TRANSACTION)(?! (TO|PREPARED))/)
	{
		@$me{qw(in failed)} = ($sql =~ /CHAIN/ && $me->{in} ? 1 : 0, 0);
	}
	$sth->finish;
	return $answer;
}

sub busy { return grep { $_ && $_->{sth} } @{$_[0]{session}} }

# Until every busy session waits for a lock; returns what the others answered.
sub settle
{
	my ($self) = @_;
	my @events;
	while (my @busy = $self->busy)
	{
		my @ready = grep { $_->{dbh}->pg_ready } @busy;
		if (@ready)
		{
			push @events, [ $_->{n}, "s$_->{n}: $_->{sql} => " . collect($_) ] for @ready;
			next;
		}
		my $now = time;
		if (!grep { !$_->{waiting} } @busy or $now - $busy[-1]{since} > 0.002)
		{
			my $waiting = $self->{monitor}->selectcol_arrayref('SELECT pid FROM pg_locks WHERE NOT granted')
			  or die 'crash: ' . $self->{monitor}->errstr;
			my %w = map { $_ => 1 } @$waiting;
			for my $s (@busy)
			{
				if ($w{$s->{pid}} && !$s->{timeout}) { $s->{waiting} ||= time }
				else { delete $s->{waiting} }
			}
			last if !grep { !$_->{waiting} || time - $_->{waiting} < SETTLED_MS / 1000 } @busy and !grep { $_->{dbh}->pg_ready } @busy;
		}
		for my $s (grep { $now - $_->{since} > HANG_S && !$_->{waiting} } @busy)
		{
			my ($event) = $self->{monitor}->selectrow_array('SELECT concat(wait_event_type, \' \', wait_event) FROM pg_stat_activity WHERE pid = ?', undef, $s->{pid});
			die(($event =~ /^BufferPin/ ? 'pin' : 'hang') . ": s$s->{n}: $s->{sql} ($event)");
		}
		IO::Select->new(map { $_->{dbh}{pg_socket} } @busy)->can_read(0.002);
	}
	return map { $_->[1] } sort { $a->[0] <=> $b->[0] } @events;
}

# Each busy session that waits, with what it had sent.
sub waits { return map { "s$_->{n} waits" } grep { $_->{waiting} } $_[0]->busy }

sub finish
{
	my ($self) = @_;
	my @trace;
	for (1 .. 50)
	{
		my @open = grep { $_ && !$_->{sth} && $_->{in} } @{$self->{session}};
		last if !@open && !$self->busy;
		$self->send_sql($_, 'ROLLBACK') for @open;
		push @trace, map { "end: $_" } $self->settle;
		my $gids = $self->{monitor}->selectcol_arrayref('SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY gid');
		must($self->{monitor}, "ROLLBACK PREPARED '$_'") for @$gids;
	}
	die 'hang: sessions wait for each other' if $self->busy;
	my $gids = $self->{monitor}->selectcol_arrayref('SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY gid');
	must($self->{monitor}, "ROLLBACK PREPARED '$_'") for @$gids;
	return @trace;
}

# What all tables hold, by every way; btrees agree; the access method's own check.
sub contents
{
	my ($self) = @_;
	my $m = $self->{monitor};
	my @lines;
	for my $t (qw(t c audit p e))
	{
		my $rows = $m->selectall_arrayref("SELECT * FROM every_way('SELECT x::text FROM $t x')");
		push @lines, "$t: " . ($rows ? text_of($rows) : $m->errstr);
	}
	for my $index (@{$m->selectcol_arrayref(q{SELECT i.oid::regclass FROM pg_class i JOIN pg_index x ON x.indexrelid = i.oid JOIN pg_am a ON a.oid = i.relam
		WHERE a.amname = 'btree' AND i.relkind = 'i' AND i.relnamespace = 'w'::regnamespace AND x.indisvalid ORDER BY 1})})
	{
		$m->do("SELECT bt_index_check('$index', true)") or push @lines, "$index: " . $m->errstr;
	}
	if ($self->{am} eq 'quantadb' && $m->selectrow_array(q{SELECT to_regproc('quantadb_check')}))
	{
		my $bad = $m->selectall_arrayref(q{SELECT c.oid::regclass, k.* FROM pg_class c JOIN pg_am a ON a.oid = c.relam, LATERAL quantadb_check(c.oid) k
			WHERE a.amname = 'quantadb' AND c.relkind IN ('r', 'm') AND c.relpersistence <> 't'});
		push @lines, 'quantadb_check: ' . ($bad ? text_of($bad) : $m->errstr) if !$bad || @$bad;
	}
	return @lines;
}

# The trace: an array of lines.
sub run
{
	my ($self, $script) = @_;
	my @trace;
	eval {
		$self->prepare($script);
		my $i = 0;
		for my $step (@{$script->{steps}})
		{
			my ($n, $sql) = @$step;
			my $me = $self->{session}[$n];
			$i++;
			if ($me->{sth})
			{
				push @trace, "$i: s$n: busy, not sent: $sql";
				next;
			}
			# A rollback would undo it, and then it is not known which sessions wait for ever.
			next if $me->{in} && $sql =~ /^SET lock_timeout/;
			if ($me->{failed} && $sql !~ /^(ROLLBACK|COMMIT|PREPARE T)/ && length($sql) % 4)
			{
				$self->send_sql($me, 'ROLLBACK');
				push @trace, map { "$i: $_" } $self->settle;
				next if $me->{sth};
			}
			$self->send_sql($me, $sql);
			push @trace, map { "$i: $_" } $self->settle, $self->waits;
		}
		push @trace, $self->finish;
		push @trace, map { "at the end: $_" } $self->contents;
		for my $vacuum (grep { !$script->{skip} || !/$script->{skip}/ } 'VACUUM (TRUNCATE false) t, c, audit, e', 'VACUUM (FREEZE) t, p')
		{
			must($self->{monitor}, $vacuum);
		}
		push @trace, map { "after vacuum: $_" } $self->contents;
		1;
	} or push @trace, $@;
	for my $s (grep { $_ } @{$self->{session}})
	{
		$s->{dbh}->pg_cancel if $s->{sth};
		$s->{dbh}->disconnect;
	}
	$self->{monitor}->disconnect if $self->{monitor};
	@$self{qw(session monitor)} = ([], undef);
	return \@trace;
}

1;
