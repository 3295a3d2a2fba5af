# What systemd hears of a server of Type=notify: it is ready, and a demotion, which goes through
# a crash cycle, is no end: the same process, never STOPPING before somebody stops it.  And the
# drop-in is one that systemd understands.
use strict;
use warnings;
use FindBin;
use IO::Select;
use IO::Socket::UNIX;
use IPC::Run;
use QuantaCluster;
use Socket;
use Test::More;

my $c = QuantaCluster->new_cluster(n => 3);
my $socket = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => "$c->{dir}/notify") or die "socket: $!";
chmod 0777, "$c->{dir}/notify";
my $said = '';

sub hear
{
	while (IO::Select->new($socket)->can_read(0))
	{
		last unless defined $socket->recv(my $message, 4096);
		$said .= "$message\n";
	}
	return $said;
}

my ($n) = grep { $_ != $c->primary } $c->all;
$c->stop($n);
{
	local $ENV{NOTIFY_SOCKET} = "$c->{dir}/notify";
	$c->start($n);
}
my $postmaster = $c->postmaster($n);
$c->wait_for(sub { hear() =~ /READY=1/ }, 60, 'it is ready');
unlike(hear(), qr/STOPPING/, 'a standby is ready, as systemd hears');
$c->wait_complete;

# The seat comes here and goes again.
my $first = $c->primary;
$c->sql($first, "SELECT quantadb_promote('n$n')", timeout => 60);
$c->wait_for(sub { $c->primary == $n && $c->write_ok($n) }, 60, "n$n is primary");
$c->wait_complete;
$c->sql($first, "SELECT quantadb_promote('n$first')", timeout => 60);
$c->wait_for(sub { $c->state($n) eq 'replica' }, 60, "n$n is a replica again");
like(QuantaCluster::slurp($c->node($n)->{log}), qr/all server processes terminated; reinitializing/, 'it went through a crash cycle');
is($c->postmaster($n), $postmaster, 'the process is the same');
unlike(hear(), qr/STOPPING/, 'and never said that it stops');
$c->wait_complete;
$c->stop($n);
$c->wait_for(sub { hear() =~ /STOPPING=1/ }, 60, 'it says that it stops');
pass('but when it is stopped it does');

SKIP:
{
	my $unit = '/lib/systemd/system/postgresql@.service';
	skip 'no systemd-analyze here', 2 unless -x '/usr/bin/systemd-analyze' && -e $unit;
	my $shipped = QuantaCluster::slurp("$FindBin::RealBin/../../docs/systemd/quantadb.conf");
	my $verify = sub {
		my ($name, $more) = @_;
		my $dir = "$c->{dir}/$name";
		QuantaCluster::run_ok('mkdir', '-p', "$dir/postgresql\@.service.d");
		QuantaCluster::run_ok('cp', $unit, $dir);
		QuantaCluster::append_file("$dir/postgresql\@.service.d/quantadb.conf", $shipped . $more);
		local $ENV{SYSTEMD_UNIT_PATH} = "$dir:";
		my ($in, $out) = ('', '');
		IPC::Run::run([ 'systemd-analyze', 'verify', "$dir/postgresql\@.service" ], '<', \$in, '>&', \$out, IPC::Run::timeout(60));
		return $out;
	};
	unlike($verify->('units', ''), qr/quantadb\.conf/, 'systemd takes every line of the drop-in');
	like($verify->('spoiled', "Restart=perhaps\n"), qr/quantadb\.conf.*perhaps/, 'and would have said so otherwise');
}
done_testing();
