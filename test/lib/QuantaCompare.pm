# QuantaCompare.pm
#	More methods of a QuantaCluster: a load that knows what was acknowledged, nodes
#	that are made to diverge, and whether nodes hold the same.
package QuantaCluster;

use strict;
use warnings;
use IPC::Run;
use POSIX ();
use Time::HiRes qw(time sleep);

my $bindir = $ENV{PG_BINDIR} || '/usr/lib/postgresql/15/bin';
my @writers;

# ---- a load that knows what was acknowledged ----

# Each writer inserts numbers of its own, never one twice, through whoever takes
# writes.  "number begin end" goes to a file only after the commit was acknowledged.
sub start_writers
{
	my ($self, $count, $table) = @_;
	for my $w (1 .. $count)
	{
		my $pid = fork();
		die "fork: $!" unless defined $pid;
		if ($pid == 0)
		{
			$SIG{TERM} = sub { POSIX::_exit(0) };
			open(my $log, '>>', "$self->{dir}/acked.$w") or POSIX::_exit(1);
			$log->autoflush(1);
			for (my $k = 0;; $k++)
			{
				my $number = $k * $count + $w;
				my $begin = time;
				my ($code) = $self->psql_rw("INSERT INTO $table VALUES ($number)", timeout => 10, connect => 2);
				if ($code == 0) { printf $log "%d %.3f %.3f\n", $number, $begin, time }
				else { sleep 0.02 }
			}
		}
		push @writers, $pid;
	}
}

sub stop_writers
{
	for my $pid (splice @writers)
	{
		kill 'TERM', $pid;
		waitpid($pid, 0);
	}
}

# [number, begin, end] of every acknowledged insert, oldest first
sub acknowledged
{
	my ($self) = @_;
	my @acks;
	for my $file (glob "$self->{dir}/acked.*")
	{
		push @acks, map { [split] } grep { /^\d+ \S+ \S+$/ } split(/\n/, slurp($file));
	}
	my @sorted = sort { $a->[2] <=> $b->[2] } @acks;
	return @sorted;
}

# Acknowledged numbers that node $i does not have.
sub missing_numbers
{
	my ($self, $i, $table) = @_;
	my %there = map { $_ => 1 } split(/\n/, $self->sql($i, "SELECT x FROM $table"));
	return grep { !$there{$_} } map { $_->[0] } $self->acknowledged;
}

# ms from $at to the first acknowledgement of an insert that began after it; undef if none.
sub outage_ms
{
	my ($self, $at) = @_;
	for my $ack ($self->acknowledged)
	{
		return int(1000 * ($ack->[2] - $at)) if $ack->[1] > $at;
	}
	return undef;
}

# Sends a signal to those children of node $i whose title matches.
sub signal_children
{
	my ($self, $signal, $i, $title) = @_;
	my $postmaster = $self->postmaster($i) or return;
	for my $pid (children_of($postmaster))
	{
		kill $signal, $pid if slurp("/proc/$pid/cmdline") =~ /$title/;
	}
}

# Stops or continues the walreceivers of the other nodes: what $primary writes
# meanwhile stays with it, though its lease lives.
sub signal_receivers
{
	my ($self, $signal, $primary) = @_;
	$self->signal_children($signal, $_, 'walreceiver') for grep { $_ != $primary } $self->all;
}

# Runs $query on the primary so that no other node has it, then kills the primary and
# waits for the next one, whose number is returned.
sub diverge
{
	my ($self, $primary, @queries) = @_;
	$self->signal_receivers('STOP', $primary);
	eval { $self->sql($primary, "SET synchronous_commit = local; $_", timeout => 120) for @queries; };
	my $error = $@;
	$self->kill_all($primary);
	# Before they read on what is in their sockets.
	$self->signal_receivers('TERM', $primary);
	$self->signal_receivers('CONT', $primary);
	die $error if $error;
	my $new;
	$self->wait_for(sub { $new = $self->primary; $new && $new != $primary }, 60, 'a new primary');
	$self->wait_for(sub { $self->write_ok($new) }, 30, "n$new takes writes");
	return $new;
}

# One line for all tables of a database, sorted within each: equal on equal nodes.
sub fingerprint
{
	my ($self, $i, $database) = @_;
	my $conninfo = $self->conninfo($i);
	$conninfo =~ s/dbname=postgres/dbname=$database/ if $database;
	my ($code, $tables, $err) = psql($conninfo, "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
		JOIN pg_class ON oid = format('%I.%I', schemaname, tablename)::regclass
		WHERE schemaname NOT IN ('pg_catalog', 'information_schema') AND relpersistence = 'p' ORDER BY 1");
	die $err if $code;
	my @lines;
	for my $table (split /\n/, $tables)
	{
		my ($c, $sum, $e) = psql($conninfo,
			"SELECT count(*) || ' ' || coalesce(sum(hashtext(t::text)::bigint), 0) FROM $table t", timeout => 120);
		die $e if $c;
		push @lines, "$table $sum";
	}
	return join(', ', @lines);
}

# Complaints of amcheck about any table or index of a database; '' is none.
sub amcheck
{
	my ($self, $i, $database) = @_;
	my ($out, $err) = ('', '');
	my $run = IPC::Run::run([ "$bindir/pg_amcheck", '-h', '127.0.0.1', '-p', $self->node($i)->{sql},
			'-U', 'postgres', '--heapallindexed', $database || 'postgres' ],
		'<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(180));
	return $run ? $out : "$out$err";
}

1;
