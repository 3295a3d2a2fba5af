# ChaosFault.pm
#	Faults of a chaos run, by name.
#
# A fault takes the cluster and does its harm at once; it returns what it did in
# words and a sub that ends it (starts what was killed, continues what was stopped). Faults pick
# their victim themselves: "primary" means whoever is primary when the fault comes.
package ChaosFault;

use strict;
use warnings;
use POSIX ();
use QuantaCluster;
use Time::HiRes qw(time sleep);

sub pick { return $_[int(rand(@_))] }

# A node that is up, by role: primary, replica, any.  0 when there is none.
sub victim
{
	my ($c, $role) = @_;
	my $primary = $c->primary;
	return $primary if $role eq 'primary';
	my @up = grep { $c->postmaster($_) && ($role eq 'any' || $_ != $primary) } $c->all;
	return @up ? pick(@up) : 0;
}

# Processes of node $i whose title contains $name.
sub processes
{
	my ($c, $i, $name) = @_;
	my $postmaster = $c->postmaster($i) or return;
	return grep { QuantaCluster::slurp("/proc/$_/cmdline") =~ /^postgres: \Q$name\E/ }
	  QuantaCluster::children_of($postmaster);
}

sub start_again
{
	my ($c, @nodes) = @_;
	return sub { $c->start($_) for grep { !$c->postmaster($_) } @nodes };
}

# ---- faults: each returns (words, healing) ----

sub kill_all
{
	my ($c, $role) = @_;
	my $i = victim($c, $role) or return;
	$c->kill_all($i);
	return ("kill -9 of all of n$i ($role)", start_again($c, $i));
}

sub kill_postmaster
{
	my ($c, $role) = @_;
	my $i = victim($c, $role) or return;
	$c->kill_postmaster($i);
	return ("kill -9 of the postmaster of n$i ($role)", start_again($c, $i));
}

sub kill_process
{
	my ($c, $role, $name) = @_;
	my $i = victim($c, $role) or return;
	my ($pid) = processes($c, $i, $name) or return;
	kill 'KILL', $pid;
	return ("kill -9 of a process \"$name\" of n$i ($role)", sub { });
}

sub stop_fast
{
	my ($c, $role) = @_;
	my $i = victim($c, $role) or return;
	$c->stop($i, 'fast');
	return ("fast shutdown of n$i ($role)", start_again($c, $i));
}

# SIGSTOP of a whole node, of its postmaster only, or of one process.
sub pause
{
	my ($c, $role, $what) = @_;
	my $i = victim($c, $role) or return;
	my $postmaster = $c->postmaster($i) or return;
	my @pids = $what eq 'node' ? ($postmaster, QuantaCluster::children_of($postmaster))
	  : $what eq 'postmaster' ? ($postmaster) : processes($c, $i, $what);
	return unless @pids;
	kill 'STOP', @pids;
	return ("SIGSTOP of $what of n$i ($role)", sub { kill 'CONT', @pids });
}

sub kill_everyone
{
	my ($c) = @_;
	my @pids;
	for my $i ($c->all)
	{
		my $pid = $c->postmaster($i) or next;
		kill 'STOP', $pid;
		push @pids, $pid, QuantaCluster::children_of($pid);
	}
	kill 'KILL', @pids;
	$c->wait_for(sub { !grep { QuantaCluster::alive($_) } @pids }, 20, 'all are dead');
	for my $i ($c->all)
	{
		my ($pid) = QuantaCluster::slurp($c->node($i)->{data} . '/postmaster.pid') =~ /^(\d+)/;
		$c->forget_zombie($i, $pid) if $pid;
	}
	return ('kill -9 of all nodes at once', start_again($c, $c->all));
}

sub stop_everyone
{
	my ($c) = @_;
	$c->stop($_, 'fast') for $c->all;
	return ('fast shutdown of all nodes', start_again($c, $c->all));
}

# The first new primary dies as soon as it has the seat, before its history spreads.
sub double_failover
{
	my ($c) = @_;
	my $first = victim($c, 'primary') or return;
	$c->kill_all($first);
	my $second = 0;
	my $until = time + 20;
	until ($second || time > $until)
	{
		for my $i (grep { $_ != $first } $c->all)
		{
			my ($seat) = grep { $_->{event} eq 'seat' } reverse @{ $c->journal($i) };
			next unless $seat && $seat->{node} ne "n$first";
			($second) = $seat->{node} =~ /^n(\d+)$/;
			last if $second;
		}
	}
	return ("kill -9 of n$first alone, nobody took over", start_again($c, $first)) unless $second;
	$c->kill_all($second);
	return ("kill -9 of n$first, then of n$second that had just got the seat", start_again($c, $first, $second));
}

sub switchover
{
	my ($c) = @_;
	my $target = victim($c, 'replica') or return;
	my ($code, $out, $err) = $c->sql_try($target, 'SELECT quantadb_promote()', timeout => 30);
	my ($said) = $err =~ /ERROR: +(.*)/;
	return ("switchover to n$target " . ($code == 0 ? "(epoch $out)" : 'refused: ' . ($said || $err)), sub { });
}

# Cancel and terminate whoever waits, while nothing can be acknowledged.
sub cancel_storm
{
	my ($c) = @_;
	my $p = victim($c, 'primary') or return;
	my @stopped = map { processes($c, $_, 'walreceiver') } grep { $_ != $p } $c->all;
	kill 'STOP', @stopped;
	my $until = time + 2;
	my $n = 0;
	while (time < $until)
	{
		my $f = $n++ % 2 ? 'pg_terminate_backend' : 'pg_cancel_backend';
		$c->sql_try($p, "SELECT $f(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
			timeout => 5);
	}
	return ("$n cancels and terminates on n$p with all receivers stopped", sub { kill 'CONT', @stopped });
}

# A damaged byte in the last WAL of a replica.  With "failover" the primary dies too, so that
# the damaged log takes part in the choice of the next one.
sub flip_byte
{
	my ($c, $failover) = @_;
	my $i = victim($c, 'replica') or return;
	my ($code, $lsn) = $c->sql_try($i, 'SELECT pg_last_wal_receive_lsn()');
	my (undef, $file) = $c->sql_try($i, "SELECT (SELECT substr(pg_walfile_name_tli, 1, 24) FROM (SELECT lpad(to_hex(received_tli), 8, '0')
		|| lpad(to_hex((('$lsn'::pg_lsn - '0/0') / 4294967296)::bigint), 8, '0')
		|| lpad(to_hex((mod('$lsn'::pg_lsn - '0/0', 4294967296) / 16777216)::bigint), 8, '0') AS pg_walfile_name_tli
		FROM pg_stat_wal_receiver) t)");
	return unless $code == 0 && $file && $file =~ /^[0-9a-f]{24}$/;
	my ($low) = $lsn =~ m{/([0-9A-F]+)$};
	my $offset = (hex($low) % 16777216) - 40;
	return if $offset < 64;
	$c->kill_all($i);
	my $path = $c->node($i)->{data} . '/pg_wal/' . uc $file;
	open(my $f, '+<', $path) or return ("n$i killed", start_again($c, $i));
	binmode $f;
	seek($f, $offset, 0);
	read($f, my $byte, 1);
	seek($f, $offset, 0);
	print $f chr(ord($byte) ^ 0x10);
	close $f;
	my $p = $failover ? victim($c, 'primary') : 0;
	$c->kill_all($p) if $p;
	$c->start($i);
	return ("a flipped bit 40 bytes before $lsn of n$i" . ($p ? " and kill -9 of n$p (primary)" : ''), start_again($c, $c->all));
}

# Schema, sequences, files that only WAL knows of.
sub ddl
{
	my ($c) = @_;
	my $p = victim($c, 'primary') or return;
	my $n = int(rand(1_000_000));
	my @statements = ("CREATE TABLE d$n (i serial, t text)", "INSERT INTO d$n (t) SELECT repeat('y', 500) FROM generate_series(1, 2000)",
		"CREATE UNLOGGED TABLE u$n AS SELECT * FROM d$n", "CREATE INDEX ON d$n (t, i)", "DELETE FROM d$n WHERE i % 2 = 0",
		"VACUUM d$n", "TRUNCATE u$n", "CREATE DATABASE b$n",
		"CREATE TABLESPACE ts$n LOCATION ''", "CREATE TABLE x$n TABLESPACE ts$n AS SELECT * FROM d$n", "ALTER TABLE d$n SET TABLESPACE ts$n",
		"CREATE SEQUENCE s$n START 100", "SELECT nextval('s$n') FROM generate_series(1, 100)",
		"BEGIN; INSERT INTO x$n SELECT * FROM d$n; TRUNCATE d$n; PREPARE TRANSACTION 'd$n'", "COMMIT PREPARED 'd$n'", "ALTER TABLE d$n ALTER t TYPE varchar",
		"DROP TABLE d$n, x$n", "DROP TABLESPACE ts$n", "DROP SEQUENCE s$n", "DROP DATABASE b$n", "DROP TABLE u$n");
	my $done = 0;
	for my $sql (@statements)
	{
		my ($code) = $c->sql_try($p, $sql, timeout => 20);
		last if $code;
		$done++;
		# Half of the time the primary dies in the middle.
		if (rand() < 0.05)
		{
			$c->kill_all($p);
			return ("$done DDL statements, then kill -9 of n$p", start_again($c, $p));
		}
	}
	return ("$done DDL statements on n$p", sub { });
}

1;
