# chaos.pl
#	A cluster under a load that remembers everything, faults, healing, verdict.
#
#	perl -Itest/lib -Itest/chaos test/chaos/chaos.pl SCENARIO [minutes=1 | faults=N] [seed=N] [nodes=3]
#
# Prints what was done and closes with TAP lines: settled after every fault, no
# anomaly of each kind, equal nodes.  "chaos.pl list" lists the scenarios; several,
# separated by commas, take turns by chance, "mix" takes all of them.
use strict;
use warnings;
use ChaosCheck;
use ChaosDisk;
use ChaosFault;
use ChaosLoad;
use ChaosNet;
use ChaosScenario;
use ChaosSteps;
use ChaosTrace;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time sleep);

# Lasting shorter than usual would test little; longer, seldom.
my $lasts = 0.5;

my ($name, @options) = @ARGV;
if (!$name || $name eq 'list')
{
	print "$_\n" for ChaosScenario::names(), 'mix';
	exit 0;
}
my %option = (minutes => 1, seed => $$ ^ time, nodes => 3, isolation => 'SERIALIZABLE', map { split(/=/, $_, 2) } @options);
my (@faults, $net, $shim, $initial, $changes);
for my $scenario ($name eq 'mix' ? ChaosScenario::names('mix') : split(/,/, $name))
{
	my $s = $ChaosScenario::scenarios{$scenario} or die "no scenario \"$scenario\", see \"list\"\n";
	push @faults, map { { fault => $_, lasts => $s->{lasts} } } @{ $s->{faults} };
	$option{nodes} = $s->{nodes} if $name ne 'mix' && ($s->{nodes} || 0) > $option{nodes};
	$initial ||= $s->{initial};
	$changes ||= $s->{alone};
	$net = 1 if ($s->{needs} || '') eq 'net';
	$shim = 1 if ($s->{needs} || '') eq 'shim';
}
if ($net)
{
	require QuantaNet;
	QuantaNet->import;			# begins this program anew, in namespaces
	$net = QuantaNet->new($option{nodes});
}
srand($option{seed});
note("scenario $name, $option{nodes} nodes, $option{minutes} minutes, seed $option{seed}");

my $here = dirname(abs_path($0));
my $c = QuantaCluster->new(n => $option{nodes}, quick => 1, net => $net,
	conf => "max_prepared_transactions = 20\nallow_in_place_tablespaces = on\n",
	env => $shim ? sub { ChaosDisk::environment(@_, $here) } : undef);
my $everybody = uri_less($c->conninfo_rw(2));		# also those who come later
$c->{n} = $initial if $initial;
$c->create_first;
$c->init(1);
$c->join_copy($_) for 2 .. $c->{n};
$c->wait_complete;
$c->{net} = $net;
$c->{chaos} = $here;
ChaosDisk::begin($c) if $shim;
my @clients;
prepare_load();
my @events = run_faults();
finish();
exit(done_testing() ? 0 : 1);

# ---- steps ----

sub prepare_load
{
	my $p = $c->primary;
	for my $kind (sort keys %ChaosLoad::kinds)
	{
		my $setup = $ChaosLoad::kinds{$kind}{setup} or next;
		$c->sql($p, $_) for $setup->();
	}
	$c->sql($p, 'CREATE EXTENSION amcheck');
	my $id = 1;
	my @writers = (([ 'unique' ]) x 2, ([ 'bank' ]) x 2, ([ 'lists' ]) x 2, ([ 'register' ]) x 2, [ 'two_phase' ], [ 'sequence' ]);
	my $timeouts = 0;
	for my $w (@writers)
	{
		my @session = $w->[0] eq 'register' ? "SET quantadb.read_consistency = 'strict'" : ();
		# A time-out must not make a commit that waits for its quorum look done.
		push @session, "SET statement_timeout = '300ms'" if $w->[0] eq 'unique' && !$timeouts++;
		push @clients, ChaosLoad::start($c->{dir}, id => $id++, kind => $w->[0], conninfo => $everybody,
			seed => $option{seed}, isolation => $option{isolation}, pause => 0.01,
			session => \@session);
	}
	for my $i ($c->all)
	{
		for my $kind ('audit', 'lists_read')
		{
			push @clients, ChaosLoad::start($c->{dir}, id => $id++, kind => $kind, conninfo => uri_less($c->conninfo($i, 3)),
				node => "n$i", seed => $option{seed}, pause => 0.05);
		}
		# Strict reads are promised on every node, and in one order with all others.
		push @clients, ChaosLoad::start($c->{dir}, id => $id++, kind => 'register', conninfo => uri_less($c->conninfo($i, 3)),
			node => "n$i", seed => $option{seed}, pause => 0.1, session => ["SET quantadb.read_consistency = 'strict'"]);
	}
}

# DBD::Pg wants name=value pairs separated by semicolons.
sub uri_less { my ($text) = @_; $text =~ s/ /;/g; return $text }

# One primary, and everybody else streams.  As a service manager would, starts a server that
# has ended: one whose startup process dies ends by itself.
sub settled
{
	my $p = 0;
	$c->pg_ctl($_, '-w', '-t', '90', '-l', $c->node($_)->{log}, 'start') for grep { !$c->postmaster($_) } $c->all;
	for my $i ($c->all)
	{
		my $state = $c->state($i);
		if ($state eq 'primary') { return 0 if $p; $p = $i }
		elsif ($state ne 'replica') { return 0 }
	}
	return $p;
}

sub run_faults
{
	my @done;
	my $until = time + 60 * $option{minutes};
	while ($option{faults} ? @done < $option{faults} : time < $until)
	{
		my $f = $faults[ int(rand(@faults)) ];
		my ($function, @args) = @{ $f->{fault} };
		my $at = time;
		my ($code) = grep { defined } map { $_->can($function) } qw(ChaosFault ChaosNet ChaosDisk ChaosSteps);
		my ($words, $heal) = eval { $code->($c, @args) };
		($words, $heal) = ("$function, which went wrong: $@", sub { $net->heal if $net; ChaosFault::start_again($c, $c->all)->() }) if $@;
		if (!$words) { sleep 0.5; next }
		note(sprintf('%.3f %s', $at, $words));
		sleep(($f->{lasts} || $lasts) * (0.5 + rand()));
		eval { $heal->(); 1 } or note("healing: $@");
		my $ok = eval { $c->wait_for(\&settled, 120, 'the cluster settles'); 1 };
		push @done, { at => $at, words => $words, settled => $ok ? time - $at : undef };
		if (!$ok)
		{
			diag("after $words: $@");
			last;
		}
		sleep(0.5 + rand());
	}
	return @done;
}

# Per fault the longest time, in ms, without an acknowledged insert until all had settled.
sub outages
{
	my (@operations) = @_;
	my @acks = sort { $a <=> $b } map { $_->{end} } grep { $_->{status} eq 'ok' && $_->{kind} eq 'unique' } @operations;
	my @ms;
	for my $event (grep { defined $_->{settled} } @events)
	{
		my ($last, $longest) = ($event->{at}, 0);
		for my $ack (grep { $_ > $event->{at} } @acks)
		{
			$longest = $ack - $last if $ack - $last > $longest;
			$last = $ack;
			last if $ack > $event->{at} + $event->{settled};
		}
		push @ms, 1000 * $longest;
	}
	return sort { $a <=> $b } @ms;
}

sub finish
{
	kill 'TERM', @clients;
	waitpid($_, 0) for @clients;
	my $unsettled = grep { !defined $_->{settled} } @events;
	cmp_ok(scalar(@events), '>', 0, scalar(@events) . ' faults');
	is($unsettled, 0, 'after each of them all nodes streamed again without help');
	my $p = eval { $c->wait_for(\&settled, 120, 'the end'); settled() };
	if (!$p) { fail('a primary at the end'); return }
	$c->be_patient($p);			# the comparison takes a while

	# Prepared transactions that nobody finished would hold their rows back from the checks.
	$c->sql($p, "ROLLBACK PREPARED '$_'") for split(/\n/, $c->sql($p, 'SELECT gid FROM pg_prepared_xacts'));
	my @operations = ChaosCheck::read_history(glob "$c->{dir}/history.*");
	my %count;
	$count{ $_->{status} }++ for @operations;
	my @ms = outages(@operations);
	note(sprintf('%s: %d faults, %d operations, %d acknowledged, %d failed, %d unknown, outage p50 %d ms, p99 %d ms',
			$name, scalar(@events), scalar(@operations), map({ $count{$_} || 0 } qw(ok fail unknown)),
			@ms ? ($ms[ @ms / 2 ], $ms[ $#ms * 0.99 ]) : (0, 0)));
	cmp_ok($count{ok} || 0, '>', 100, 'operations were acknowledged');

	my %anomalies = (
		'unique inserts' => [ ChaosCheck::check_set('insert', [ split(/\n/, $c->sql($p, 'SELECT x FROM uniq')) ],
				ChaosCheck::of_kind('unique', @operations)) ],
		'prepared inserts' => [ ChaosCheck::check_set('prepared insert', [ split(/\n/, $c->sql($p, 'SELECT x FROM prepared')) ],
				ChaosCheck::of_kind('two_phase', @operations)) ],
		'the bank' => [ ChaosCheck::check_bank(ChaosLoad::ACCOUNTS, ChaosLoad::BALANCE, ChaosCheck::of_kind('audit', @operations)) ],
		'registers' => [ ChaosCheck::check_registers(ChaosCheck::of_kind('register', @operations)) ],
		'lists' => [ ChaosCheck::check_lists({ map { split(/\|/, $_, 2) } split(/\n/, $c->sql($p, 'SELECT k, v FROM lists')) },
				$option{isolation}, grep { $_->{kind} =~ /^lists/ } @operations) ],
		'the sequence' => [ ChaosCheck::check_sequence({ map { split(/\|/, $_, 2) } split(/\n/, $c->sql($p, 'SELECT x, client FROM drawn')) },
				ChaosCheck::of_kind('sequence', @operations)) ],
		'the epochs' => [ ChaosTrace::check($changes ? 0 : $c->{n}, map { ("n$_" => [ read_log($_) ]) } $c->all) ],
		'the journal' => [ ChaosCheck::check_journal(map { [ split(/\|/) ] }
				split(/\n/, $c->sql($p, 'SELECT epoch, event, node FROM quantadb_journal ORDER BY time'))) ]);
	my @lost = grep { /^lost/ } map { @$_ } values %anomalies;
	my $others = (map { @$_ } values %anomalies) - @lost;
	# For the table of chaos.sh.
	note(join("\t", 'run', $name, $option{minutes} * 60, scalar(@events), scalar(@operations), $count{ok} || 0, scalar(@lost), $others,
			$c->sql($p, 'SELECT epoch FROM quantadb_status()') - 1, join(',', map { int } @ms)));
	for my $what (sort keys %anomalies)
	{
		my @found = @{ $anomalies{$what} };
		diag($_) for splice(@{ [@found] }, 0, 10);
		is(scalar(@found), 0, "$what: no anomaly");
	}
	equal_nodes($p);
}

sub read_log
{
	my ($i) = @_;
	open(my $log, '<', $c->node($i)->{log}) or return;
	return ChaosTrace::read_log("n$i", <$log>);
}

# Tables, WAL and indexes.
sub equal_nodes
{
	my ($p) = @_;
	my $digest = join(' UNION ALL ', map { "SELECT '$_' AS name, count(*), md5(string_agg(t::text, ' ' ORDER BY t::text)) FROM $_ t" }
		  qw(uniq bank lists register prepared drawn)) . ' ORDER BY name';
	my $expected = $c->sql($p, $digest);
	for my $i (grep { $_ != $p } $c->all)
	{
		$c->wait_replayed($i, $p);
		is($c->sql($i, $digest), $expected, "n$i has the tables of n$p");
		is($c->fingerprint($i), $c->fingerprint($p), '... all that there are');
		is(different_wal($p, $i), '', "n$i has the WAL of n$p");
	}
	for my $i ($c->all)
	{
		my ($code, undef, $err) = $c->sql_try($i,
			"SELECT bt_index_check(c.oid, true) FROM pg_class c JOIN pg_am a ON a.oid = relam
			 WHERE amname = 'btree' AND relkind = 'i' AND relpersistence = 'p'", timeout => 120);
		is($code, 0, "amcheck finds nothing on n$i") or diag($err);
		my $corrupt = $c->sql($i, "SELECT count(*) FROM pg_class c, LATERAL verify_heapam(c.oid) v
			WHERE relkind = 'r' AND relpersistence = 'p' AND relam = (SELECT oid FROM pg_am WHERE amname = 'heap')", timeout => 120);
		is($corrupt, 0, "nor does verify_heapam");
	}
}

# Names of complete segments that both nodes have with other bytes; '' when none.
sub different_wal
{
	my ($p, $i) = @_;
	my $current = $c->sql($p, 'SELECT pg_walfile_name(pg_current_wal_flush_lsn())');
	my @different;
	for my $path (glob $c->node($p)->{data} . '/pg_wal/' . ('[0-9A-F]' x 24))
	{
		my ($segment) = $path =~ m{/([0-9A-F]{24})$};
		my $other = $c->node($i)->{data} . "/pg_wal/$segment";
		# Later ones are recycled files of no meaning; of earlier timelines the last is partial.
		next if substr($segment, 0, 8) ne substr($current, 0, 8) || $segment ge $current || !-e $other;
		push @different, $segment if QuantaCluster::slurp($path) ne QuantaCluster::slurp($other);
	}
	return join(' ', @different);
}
