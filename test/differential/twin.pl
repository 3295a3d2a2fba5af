# twin.pl
#	The differential fuzzer: the same random sessions on heap tables and on quantadb
#	tables; answers, SQLSTATEs and waits must agree.
#
#	perl -Itest/differential twin.pl host port [name=value...]
#	  seconds=60 | seeds=100   how long
#	  seed=N                   the first seed (default: from the clock)
#	  steps=120                statements of a script
#	  subject=quantadb         the access method compared with heap
#	  jobs=1                   pairs of runs at the same time
#	  tamper=1                 damages the subject on purpose: must be found
#	  skip=REGEX               leaves out statements that match
#	  save=dir                 keeps the scripts that differ
#
# A seed whose outcomes differ is run again: when heap itself varies (two sessions
# released at the same moment), it proves nothing and is only counted.  What remains is
# made as short as possible and printed with both answers.  Prints TAP-like lines.
use strict;
use warnings;
use DBI;
use File::Temp qw(tempdir);
use JSON::PP;
use POSIX ();
use Time::HiRes qw(time);
use Script;
use Runner;

$| = 1;
my ($host, $port, @rest) = @ARGV;
my %opt = (seconds => 60, seeds => 1e9, seed => 1 + time % 1e8, steps => 120, subject => 'quantadb', jobs => 1, tamper => 0, save => '', skip => '',
	map { split /=/, $_, 2 } @rest);
my $dir = tempdir(CLEANUP => 1);

sub admin
{
	my ($db, @sql) = @_;
	my $dbh = DBI->connect("dbi:Pg:dbname=$db;host=$host;port=$port", 'postgres', '', { PrintError => 0, PrintWarn => 0 }) or die $DBI::errstr;
	$dbh->do($_) or die "$_: " . $dbh->errstr for @sql;
}

sub make_databases
{
	my ($job) = @_;
	for my $db ("base$job", "subject$job")
	{
		admin('postgres', "DROP DATABASE IF EXISTS $db", "CREATE DATABASE $db");
		admin($db, 'SET client_min_messages = error', 'CREATE EXTENSION IF NOT EXISTS quantadb', 'CREATE EXTENSION amcheck');
	}
}

sub script_of
{
	my ($seed) = @_;
	my $script = Script::generate($seed, steps => $opt{steps});
	if ($opt{skip})
	{
		$script->{skip} = $opt{skip};
		$script->{steps} = [ grep { $_->[1] !~ /$opt{skip}/ } @{$script->{steps}} ];
		$script->{setup} = [ grep { !/$opt{skip}/ } @{$script->{setup}} ];
	}
	return $script;
}

# A child that runs the script; its trace comes through a file.
sub spawn
{
	my ($job, $side, $script) = @_;
	my $file = "$dir/$job-$side.json";
	my $pid = fork;
	return [ $pid, $file ] if $pid;
	my $runner = Runner->new(host => $host, port => $port, db => "$side$job", am => $side eq 'base' ? 'heap' : $opt{subject},
		tamper => $side eq 'subject' && $opt{tamper});
	open my $f, '>', $file or die $!;
	print $f encode_json($runner->run($script));
	close $f;
	POSIX::_exit(0);
}

sub harvest
{
	my ($child) = @_;
	waitpid $child->[0], 0;
	open my $f, '<', $child->[1] or return ['crash: no trace'];
	local $/;
	my $trace = eval { decode_json(<$f>) } || ['crash: no trace'];
	unlink $child->[1];
	wait_for_server() if grep { /^crash/ } @$trace;
	return $trace;
}

sub wait_for_server
{
	for (1 .. 300)
	{
		return if DBI->connect("dbi:Pg:dbname=postgres;host=$host;port=$port", 'postgres', '', { PrintError => 0 });
		select undef, undef, undef, 0.2;
	}
	die "the server does not come back\n";
}

sub both
{
	my ($script) = @_;
	my @children = map { spawn(0, $_, $script) } qw(base subject);
	return map { harvest($_) } @children;
}

sub key { return join "\n", map { s/\b(base|subject)\d+-/gid-/gr } @{$_[0]} }

# Whether a difference is the access method's: heap does not vary, the subject never gives heap's answer.
sub confirmed
{
	my ($script, $times) = @_;
	my (%heap, %subject);
	for (1 .. $times)
	{
		my ($h, $s) = both($script);
		$heap{key($h)} = 1;
		$subject{key($s)} = 1;
		return 0 if keys %heap > 1 || grep { $heap{$_} } keys %subject;
	}
	return 1;
}

# Fewer steps with a difference still: delta debugging by halves.
sub shorten
{
	my ($script, $until) = @_;
	my @steps = @{$script->{steps}};
	my $size = int(@steps / 2);
	while ($size >= 1 && time < $until)
	{
		my $at = 0;
		while ($at < @steps && time < $until)
		{
			my @try = @steps;
			splice @try, $at, $size;
			if (confirmed({ %$script, steps => \@try }, 2)) { @steps = @try }
			else { $at += $size }
		}
		$size = int($size / 2);
	}
	my @setup = @{$script->{setup}};
	for my $i (reverse 7 .. $#setup)
	{
		last if time > $until;
		my @try = @setup;
		splice @try, $i, 1;
		my $shorter = { %$script, steps => \@steps, setup => \@try };
		@setup = @try if confirmed($shorter, 2);
	}
	return { %$script, steps => \@steps, setup => \@setup };
}

sub report
{
	my ($script) = @_;
	my ($h, $s) = both($script);
	print "#   sessions: $script->{sessions}, profile $script->{profile}\n";
	print "#   $_;\n" for @{$script->{setup}};
	my $n = 0;
	printf "#   %d: s%d: %s;\n", ++$n, @$_ for @{$script->{steps}};
	my $shown = 0;
	for my $i (0 .. ($#$h > $#$s ? $#$h : $#$s))
	{
		my ($a, $b) = map { defined $_->[$i] ? $_->[$i] =~ s/\b(base|subject)\d+-/gid-/gr : '(nothing)' } $h, $s;
		next if $a eq $b;
		print map { s/^/#   /mgr . "\n" } "heap:     $a", "$opt{subject}: $b";
		last if ++$shown >= 4;
	}
}

sub judge
{
	my ($script, $h, $s, $count) = @_;
	$count->{statements} += @$h;
	if (my @lost = grep { /^(crash|hang)/ } @$h)
	{
		$count->{different}++;
		print "not ok - seed $script->{seed}: heap: $lost[0]\n";
		return;
	}
	return if key($h) eq key($s);

	# Heap's VACUUM waits for a session that keeps a page pinned while it waits for a row itself.
	if (grep { /^pin/ } @$h and !grep { /^(pin|crash|hang)/ } @$s)
	{
		$count->{varying}++;
		print "# seed $script->{seed}: heap waits for a buffer pin\n" if $ENV{TWIN_VERBOSE};
		return;
	}

	# Two sessions that are released at the same moment: heap, too, answers now this, now that.
	my %heap = (key($h) => 1);
	my $agreed = 0;
	for (1 .. 11)
	{
		my ($h2, $s2) = both($script);
		$heap{key($h2)} = 1;
		$agreed++ if $heap{key($s2)};
		next if keys %heap == 1 && !$heap{key($s)};
		$count->{varying}++;
		print "# seed $script->{seed}: heap itself varies\n" if $ENV{TWIN_VERBOSE};
		return;
	}
	print "# seed $script->{seed}: differs now and then\n" if $agreed;
	$count->{different}++;
	print "not ok - seed $script->{seed} ($script->{profile}) differs; again with: seed=$script->{seed} seeds=1 steps=$opt{steps}\n";
	my $short = shorten($script, time + ($opt{shorten} || 90));
	report($short);
	if ($opt{save})
	{
		open my $f, '>', "$opt{save}/seed-$script->{seed}.json" or die $!;
		print $f JSON::PP->new->pretty->canonical->encode($short);
	}
}

make_databases($_) for 0 .. $opt{jobs};
if ($opt{script})
{
	open my $f, '<', $opt{script} or die "$opt{script}: $!";
	local $/;
	report(decode_json(<$f>));
	exit 0;
}
my %count = (scripts => 0, statements => 0, varying => 0, different => 0);
my $end = time + $opt{seconds};
my $seed = $opt{seed};
my $first = $seed;
while (time < $end && $seed < $first + $opt{seeds} && $count{different} < ($opt{most} || 5))
{
	my @pairs;
	for my $job (1 .. $opt{jobs})
	{
		last if $seed >= $first + $opt{seeds};
		my $script = script_of($seed++);
		push @pairs, [ $script, map { spawn($job, $_, $script) } qw(base subject) ];
	}
	for my $pair (@pairs)
	{
		my ($script, @children) = @$pair;
		my ($h, $s) = map { harvest($_) } @children;
		$count{scripts}++;
		judge($script, $h, $s, \%count);
	}
}
print "# $count{scripts} scripts, $count{statements} lines of trace, seeds $first to " . ($seed - 1)
  . ", $count{varying} on which heap itself varies\n";
print $count{different} ? 'not ok' : 'ok', " - heap and $opt{subject} agree on $count{scripts} scripts, $count{different} differ\n";
# More than a few would mean that the fuzzer looks away.
print $count{varying} * 2 <= $count{scripts} + 4 ? 'ok' : 'not ok', " - heap itself varies on few of them\n";
exit($count{different} ? 1 : 0);
