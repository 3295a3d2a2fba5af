# ChaosDisk.pm
#	Disks that fail, forget or are full, and clocks that run wrong: all servers of
#	the run have test/chaos/shim.c below them.
#
# Each fault returns its words and a sub that ends it, like those of ChaosFault.
package ChaosDisk;

use strict;
use warnings;
use ChaosFault;
use QuantaCluster;
use Time::HiRes qw(time sleep);

my ($library, $program);

# Compiles the shim for a cluster, and gives a node its own; returns its environment.
sub environment
{
	my ($c, $node, $source) = @_;
	if (!$library)
	{
		($library, $program) = ("$c->{dir}/shim.so", "$c->{dir}/shim");
		QuantaCluster::run_ok('gcc', '-O2', '-shared', '-fPIC', '-o', $library, "$source/shim.c", '-ldl');
		QuantaCluster::run_ok('gcc', '-O2', '-DSHIM_PROGRAM', '-o', $program, "$source/shim.c");
		chmod 0755, $library, $program;
	}
	my $dir = "$c->{dir}/$node->{name}.shim";
	mkdir $dir;
	QuantaCluster::append_file("$dir/control", "\0" x 4096);
	QuantaCluster::run_ok('chown', '-R', 'postgres:', $dir) if $> == 0;
	return ("LD_PRELOAD=$library", "QDB_SHIM=$dir", "QDB_SHIM_DATA=$node->{data}");
}

sub order
{
	my ($c, $i, @words) = @_;
	my $said = QuantaCluster::run_ok(@{ $c->node($i)->{enter} }, $program, "$c->{dir}/n$i.shim", @words);
	chomp $said;
	return $said;
}

# From now on what is not synced can be lost.
sub begin
{
	my ($c) = @_;
	order($c, $_, 'set', 'undo=1') for $c->all;
}

sub slow_sync
{
	my ($c, $role, $path) = @_;
	my $i = ChaosFault::victim($c, $role) or return;
	order($c, $i, 'set', "path=$path", 'sync_delay_ms=2000');
	return ("each fsync of \"$path\" takes 2 s longer on n$i ($role)", sub { order($c, $i, 'set', 'sync_delay_ms=0') });
}

sub fail_sync
{
	my ($c, $role, $path) = @_;
	my $i = ChaosFault::victim($c, $role) or return;
	order($c, $i, 'set', "path=$path", 'sync_fail=1');
	return ("the next fsync of \"$path\" fails on n$i ($role)",
		sub { order($c, $i, 'set', 'sync_fail=0'); ChaosFault::start_again($c, $i)->() });
}

# No file grows any more.  New WAL segments are asked for, so that it is noticed.
sub disk_full
{
	my ($c, $role, $path) = @_;
	my $i = ChaosFault::victim($c, $role) or return;
	order($c, $i, 'set', "path=$path", 'full=1');
	for (1 .. 3)
	{
		my $p = $c->primary or last;
		$c->sql_try($p, 'SELECT pg_switch_wal()', timeout => 5);
	}
	return ("no space for \"$path\" on n$i ($role)",
		sub { order($c, $i, 'set', 'full=0'); ChaosFault::start_again($c, $i)->() });
}

# The power goes: nothing is left of what was not synced, but for what chance has kept.
sub lose_power
{
	my ($c, $role) = @_;
	my $i = ChaosFault::victim($c, $role) or return;
	$c->kill_all($i);
	my $said = order($c, $i, 'lose', int(rand(1_000_000)));
	return ("power loss of n$i ($role): $said", ChaosFault::start_again($c, $i));
}

sub lose_power_everywhere
{
	my ($c) = @_;
	ChaosFault::kill_everyone($c);
	my @said = map { "n$_ " . order($c, $_, 'lose', int(rand(1_000_000))) } $c->all;
	return ('power loss of all nodes: ' . join('; ', @said), ChaosFault::start_again($c, $c->all));
}

# A clock that runs too fast or too slow.
sub clock_rate
{
	my ($c, $role, $rate) = @_;
	my $i = ChaosFault::victim($c, $role) or return;
	order($c, $i, 'set', "rate=$rate");
	return ("the clocks of n$i ($role) run at $rate", sub { order($c, $i, 'set', 'rate=1') });
}

# The time of day jumps; no clock that only counts does that.
sub clock_jump
{
	my ($c, $role, $seconds) = @_;
	my $i = ChaosFault::victim($c, $role) or return;
	order($c, $i, 'set', 'jump_ms=' . 1000 * $seconds);
	return ("the time of day of n$i ($role) jumps by $seconds s", sub { });
}

1;
