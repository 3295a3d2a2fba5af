# quantadb.clone_rate bounds what a clone takes a second, on the node that fetches and on the
# one that serves, and a new value counts while the clone runs.
use strict;
use warnings;
use QuantaCluster;
use Time::HiRes qw(time);
use Test::More;

my $c = QuantaCluster->new(n => 2, conf => "wal_compression = off\n");
$c->create_first(1);
$c->init(1);
$c->sql(1, q{CREATE TABLE big (x int PRIMARY KEY, t text);
	INSERT INTO big SELECT g, repeat(md5(g::text), 30) FROM generate_series(1, 40000) g}, timeout => 120);

sub set_rate { my ($i, $rate) = @_; $c->sql($i, "ALTER SYSTEM SET quantadb.clone_rate = '$rate'; SELECT pg_reload_conf()") }

# What has come, as the node itself says.
sub done
{
	my ($code, $out) = $c->sql_try(1, q{SELECT resync_done FROM quantadb_nodes WHERE name = 'n2'});
	return $code == 0 ? $out || 0 : 0;
}

# Bytes a second between two moments at which news came.
sub measure
{
	my @seen;
	my $last = done();
	$c->wait_for(sub {
			my $now = done();
			push @seen, [time, $now] if $now != $last;
			$last = $now;
			return @seen > 1 && $seen[-1][0] - $seen[0][0] > 3;
		}, 90, 'the clone goes on');
	return ($seen[-1][1] - $seen[0][1]) / ($seen[-1][0] - $seen[0][0]);
}

sub is_about
{
	my ($rate, $what) = @_;
	my $is;
	# News that came late, or a machine that was busy, make one measurement wrong, but not all.
	for (1 .. 5)
	{
		$is = measure();
		diag(sprintf('%s: %.2f MB/s', $what, $is / 1e6));
		last if $is < 1.5 * $rate && $is > 0.25 * $rate;
	}
	cmp_ok($is, '<', 1.5 * $rate, "$what: no more than that");
	cmp_ok($is, '>', 0.25 * $rate, "$what: and not much less");
}

# At 256 kB/s it would take three minutes.
$c->create_first(2);
$c->sql(2, 'CREATE EXTENSION quantadb');
set_rate(2, '1MB');
my ($code, undef, $err) = $c->ask_join(2, 1);
is($code, 0, 'the call returns while the data comes') or diag $err;
is_about(1024 * 1024, 'set where it is fetched');
set_rate(1, '256kB');
set_rate(2, '0');
is_about(256 * 1024, 'set where it is served, while it runs');
set_rate(1, '2MB');
is_about(2 * 1024 * 1024, 'raised while it runs');
set_rate(1, '0');
$c->wait_for(sub { $c->state(2) eq 'replica' }, 90, 'without a bound it is soon there');
is($c->sql(2, 'SELECT count(*) FROM big'), '40000', 'all of it');
done_testing();
