# QuantaCluster.pm
#	A cluster of real servers on loopback for the TAP tests.
#
# Nodes are numbered from 1 and named n1, n2, ...  Everything lives in one
# temporary folder; every server that was started is killed and the folder
# removed at the end, also after a die (kept when a test failed, or with QUANTADB_KEEP).  Nothing here
# sleeps for a fixed time to let something happen: wait_for polls a condition.  The limits are for
# a machine that does ten other things: where a time is the promise, the test measures it.
package QuantaCluster;

use strict;
use warnings;
use Cwd qw(abs_path);
use File::Path qw(remove_tree);
use File::Temp qw(tempdir);
use IO::Socket::INET;
use IPC::Run;
use JSON::PP;
use POSIX ();
use Test::More;
use Time::HiRes qw(time sleep);
use QuantaCompare;

my $bindir = $ENV{PG_BINDIR} || '/usr/lib/postgresql/15/bin';
my $owner = $$;
my @clusters;
my %given;						# ports that somebody here has or had

# ---- construction ----

# new(n => 3): folders and ports only; nothing runs yet.  env: a sub that is given the
# cluster and a node's number and returns NAME=VALUE for its server.  quick: silence of half a
# second is a failure, as by default; else init is patient.  conf_of: a sub that is given a node's
# number and returns settings of its own.  postgres: a program that runs the server instead.
sub new
{
	my ($class, %args) = @_;
	my $self = bless { n => $args{n} || 3, conf => $args{conf} || '', conf_of => $args{conf_of}, postgres => $args{postgres}, quick => $args{quick}, nodes => [] }, $class;
	delete @ENV{grep { /^PG(?!_BINDIR)/ } keys %ENV};
	umask 0077;
	$self->{dir} = $args{dir} || tempdir('qdb-XXXXXX', DIR => $ENV{TMPDIR} || '/tmp');
	my @ports = free_ports(4 * $self->{n});
	for my $i (1 .. $self->{n})
	{
		my ($sql, $raft, $replication, $http) = splice(@ports, 0, 4);
		$self->{nodes}[$i] = {
			name => "n$i", data => "$self->{dir}/n$i", log => "$self->{dir}/n$i.log",
			host => $args{net} ? $args{net}->host($i) : '127.0.0.1',
			enter => [ ($args{net} ? $args{net}->enter($i) : ()), ($> == 0 ? qw(runuser -u postgres --) : ()) ],
			sql => $sql, raft => $raft, replication => $replication, http => $http };
	}
	# PostgreSQL does not run as root.
	run_ok('chown', 'postgres:', $self->{dir}) if $> == 0;
	$_->{env} = $args{env} ? [ $args{env}->($self, $_) ] : [] for grep { defined } @{ $self->{nodes} };
	push @clusters, $self;
	return $self;
}

# Ports that nobody has, below the range that outgoing connections take theirs from.
sub free_ports
{
	my ($count) = @_;
	my @found;
	for (1 .. 1000)
	{
		my $port = 10000 + int(rand(20000));
		next if $given{$port};
		my $socket = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port,
			Listen => 1, Proto => 'tcp') or next;
		close $socket;
		push @found, $port;
		$given{$port} = 1;
		return @found if @found == $count;
	}
	die "no free ports";
}

# A cluster of $n members that are all voters and stream.
sub new_cluster
{
	my ($class, %args) = @_;
	my $self = $class->new(%args);
	$self->create_first;
	$self->init(1);
	$self->join_copy($_) for 2 .. $self->{n};
	$self->wait_complete if $self->{n} > 1;
	return $self;
}

sub node { return $_[0]{nodes}[$_[1]] || die "no node $_[1]" }
sub all { return (1 .. $_[0]{n}) }
sub all_but { my ($self, $i) = @_; return grep { $_ != $i } $self->all }

sub run_within
{
	my ($seconds, @command) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run(\@command, '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout($seconds))
	  or die "@command failed: $out$err";
	return $out;
}

sub run_ok { return run_within(180, @_) }
sub run_long { return run_within(1800, @_) }

sub append_file
{
	my ($path, $text) = @_;
	open(my $f, '>>', $path) or die "$path: $!";
	print $f $text;
	close $f or die "$path: $!";
}

sub slurp
{
	my ($path) = @_;
	open(my $f, '<', $path) or return '';
	local $/;
	my $text = <$f>;
	return defined $text ? $text : '';
}

# The settings that differ from node to node, in a file of their own.
sub write_settings
{
	my ($self, $i, %args) = @_;
	my $node = $self->node($i);
	my $preload = $args{no_preload} ? '' : "shared_preload_libraries = 'quantadb'
quantadb.node_name = '$node->{name}'
quantadb.listen_addresses = '$node->{host}'
quantadb.raft_port = $node->{raft}
quantadb.replication_port = $node->{replication}
quantadb.http_port = $node->{http}
";
	unlink "$node->{data}/node.conf";
	my $hba = slurp("$node->{data}/pg_hba.conf");
	append_file("$node->{data}/pg_hba.conf", "host all,replication all samenet trust\n")
	  if $node->{host} ne '127.0.0.1' && $hba !~ /^host all,replication/m;
	append_file("$node->{data}/node.conf", "${preload}port = $node->{sql}
listen_addresses = '$node->{host}'
unix_socket_directories = '$self->{dir}'
shared_buffers = 16MB
max_connections = 50
log_line_prefix = '%m [%p] %b '
log_min_messages = info
$self->{conf}
" . ($self->{conf_of} ? $self->{conf_of}->($i) : ''));
	$self->give_to_owner($i);
}

# What a test as root has written into a data directory belongs to the server.
sub give_to_owner
{
	my ($self, $i) = @_;
	run_ok('chown', '-R', 'postgres:', $self->node($i)->{data}) if $> == 0;
}

# initdb and start, loaded and inert; with checksums, so that it can rewind, unless told.
sub create_first
{
	my ($self, $i, %args) = @_;
	$i ||= 1;
	my $node = $self->node($i);
	run_ok(@{$node->{enter}}, "$bindir/initdb", '-A', 'trust', '-U', 'postgres', '-N', '-E', 'UTF8',
		'--locale=C', '-D', $node->{data}, $args{no_checksums} ? () : '-k');
	append_file("$node->{data}/postgresql.conf", "include = 'node.conf'\n");
	$self->write_settings($i, %args);
	$self->start($i);
}

# The first member.
sub init
{
	my ($self, $i) = @_;
	$self->sql($i, 'CREATE EXTENSION IF NOT EXISTS quantadb');
	$self->sql($i, "SELECT quantadb_init('test')");
	$self->wait_for(sub { $self->state($i) eq 'primary' }, 30, "n$i is primary");
	$self->wait_for(sub { $self->write_ok($i) }, 30, "n$i takes writes");
	$self->be_patient($i) unless $self->{quick};
}

# A member that gets no processor for a second has not failed.  Who dies is noticed as
# soon as ever, and the next one waits for no more than the lease.
sub be_patient
{
	my ($self, $i) = @_;
	$self->sql($i, "SELECT quantadb_set('lease_duration', '1s')");
	$self->sql($i, "SELECT quantadb_set('failover_timeout', '4s')");
}

# A copy of $from, made with pg_basebackup, started as a standby of nobody.
sub copy_node
{
	my ($self, $i, $from) = @_;
	my $node = $self->node($i);
	run_long(@{$node->{enter}}, "$bindir/pg_basebackup", '-h', $self->node($from)->{host}, '-p', $self->node($from)->{sql},
		'-U', 'postgres', '-D', $node->{data}, '-X', 'stream', '-c', 'fast');
	my $auto = "$node->{data}/postgresql.auto.conf";
	my @kept = grep { !/^\s*primary_(conninfo|slot_name)\b/ } split(/^/, slurp($auto));
	unlink $auto;
	append_file($auto, join('', @kept));
	append_file("$node->{data}/standby.signal", '');
	$self->write_settings($i);
	$self->start($i);
}

# The server answers the call with a crash cycle, from which it returns as a member.
sub join_copy
{
	my ($self, $i, $from, %args) = @_;
	$from ||= $self->primary || 1;
	$self->copy_node($i, $from);
	my $token = $self->sql($from, "SELECT quantadb_join_token('" . ($args{role} || 'voter') . "')");
	my ($host, $http) = @{$self->node($from)}{qw(host http)};
	my ($code, $out, $err) =
	  $self->sql_try($i, "SELECT quantadb_join('$host:$http', '$token')", timeout => 60);
	diag("quantadb_join on n$i: $err") if $code != 0 && $err =~ /ERROR: +(?!57P)/;
	$self->wait_for(sub { $self->state($i) eq 'replica' }, 60, "n$i streams");
}

# A fresh server asks to join, without its own data to keep; (code, out, err) of the call.
sub ask_join
{
	my ($self, $i, $from, %args) = @_;
	my $token = $args{token} || $self->sql($from, 'SELECT quantadb_join_token()');
	my $host = $self->node($from)->{host};
	my $http = $args{http} || $self->node($from)->{http};
	my $discard = $args{keep} ? '' : ', discard_local_data => true';
	return $self->sql_try($i, "SELECT quantadb_join('$host:$http', '$token'$discard)", timeout => 90);
}

# initdb, CREATE EXTENSION, quantadb_join: the data comes from the primary.
sub join_fresh
{
	my ($self, $i, $from, %args) = @_;
	$from ||= $self->primary || 1;
	$self->create_first($i) unless $self->postmaster($i);
	$self->sql($i, 'CREATE EXTENSION IF NOT EXISTS quantadb');
	my ($code, $out, $err) = $self->ask_join($i, $from, %args);
	# A small clone is there before the call returns: then its session ends with 57P02.
	die "quantadb_join on n$i: $err" if $code != 0 && $err =~ /ERROR: +(?!57P)/;
	$self->wait_for(sub { $self->state($i) eq 'replica' }, $args{timeout} || 90, "n$i streams");
}

# All members are voters, the others stream from one primary.
sub wait_complete
{
	my ($self, $timeout) = @_;
	$self->wait_for(
		sub {
			my $p = $self->primary or return 0;
			return 0 if grep { $_ != $p && $self->state($_) ne 'replica' } $self->all;
			# While a change of the membership is open, can_lose counts it too.
			my ($code, $out) = $self->sql_try($p,
				"SELECT count(*), (SELECT can_lose FROM quantadb_status()) FROM quantadb_nodes WHERE role = 'voter'");
			return $code == 0 && $out eq $self->{n} . '|' . int(($self->{n} - 1) / 2);
		},
		$timeout || 60,
		"$self->{n} voters stream");
}

# ---- start, stop, kill ----

sub pg_ctl
{
	my ($self, $i, @args) = @_;
	my $node = $self->node($i);
	if ($args[-1] eq 'start')
	{
		my ($old) = slurp("$node->{data}/postmaster.pid") =~ /^(\d+)/;
		$self->forget_zombie($i, $old) if $old && -e "/proc/$old" && !alive($old);
	}
	# Not through a pipe: the server would hold its other end.
	my $pid = fork();
	die "fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		open(STDIN, '<', '/dev/null');
		open(STDOUT, '>>', "$self->{dir}/pg_ctl.log");
		open(STDERR, '>&', \*STDOUT);
		exec(@{$node->{enter}}, 'env', @{$node->{env}}, "$bindir/pg_ctl", '-D', $node->{data}, @args) or POSIX::_exit(127);
	}
	waitpid($pid, 0);
	return $? == 0;
}

sub start
{
	my ($self, $i) = @_;
	my $node = $self->node($i);
	return if $self->pg_ctl($i, '-w', '-t', $self->{postgres} ? '900' : '180', '-l', $node->{log},
		($self->{postgres} ? ('-p', $self->{postgres}) : ()), 'start');
	my @log = split(/\n/, slurp($node->{log}));
	diag(join("\n", @log > 20 ? @log[-20 .. -1] : @log));
	die "$node->{name} does not start";
}

# Starts node $i so that it dies right after it did $call (unlink, rename) to the file of
# that name, the first time after $self->arm_killer.  stop: the process that did it is stopped.
sub start_with_killer
{
	my ($self, $i, $call, $name, %args) = @_;
	my $library = "$self->{dir}/killer.so";
	(my $source = __FILE__) =~ s/QuantaCluster\.pm$/killer.c/;
	run_ok('cc', '-shared', '-fPIC', '-O1', '-o', $library, $source, '-ldl') unless -e $library;
	local @ENV{qw(LD_PRELOAD QDB_KILL_AT QDB_KILL_ARMED)} = ($library, "$call $name", "$self->{dir}/armed");
	local $ENV{QDB_KILL_STOPS} = 1 if $args{stop};
	$self->start($i);
}

sub arm_killer { my ($self) = @_; append_file("$self->{dir}/armed", '') }

# Waits for the death that was arranged so.
sub await_killer
{
	my ($self, $i, $pid) = @_;
	$self->wait_for(sub { !alive($pid) }, 60, "n$i is killed");
	$self->wait_for(sub { !grep { alive($_) } children_of($pid) }, 30, "the orphans of n$i have gone");
	$self->forget_zombie($i, $pid);
}

# Every process of node $i at once.
sub freeze
{
	my ($self, $i) = @_;
	my $pid = $self->postmaster($i);
	kill 'STOP', $pid;
	kill 'STOP', children_of($pid);
}

sub thaw
{
	my ($self, $i) = @_;
	my $pid = $self->postmaster($i);
	kill 'CONT', $pid, children_of($pid);
}

sub stop
{
	my ($self, $i, $mode) = @_;
	return $self->pg_ctl($i, '-w', '-t', '120', '-m', $mode || 'fast', 'stop');
}

sub postmaster
{
	my ($self, $i) = @_;
	my ($pid) = slurp($self->node($i)->{data} . '/postmaster.pid') =~ /^(\d+)/;
	return 0 unless $pid && kill(0, $pid);
	# A stale file's pid may be somebody else's by now.
	my $cwd = readlink("/proc/$pid/cwd") || '';
	return $cwd eq (abs_path($self->node($i)->{data}) || '') ? $pid : 0;
}

sub children_of
{
	my ($parent) = @_;
	my @children;
	for my $stat (glob '/proc/[0-9]*/stat')
	{
		my ($pid, $ppid) = slurp($stat) =~ /^(\d+) \(.*\) \S (\d+)/s;
		push @children, $pid if defined $ppid && $ppid == $parent;
	}
	return @children;
}

# kill -9 of the postmaster and everything it started, at one moment.
sub kill_all
{
	my ($self, $i) = @_;
	my $pid = $self->postmaster($i) or return;
	kill 'STOP', $pid;			# no new children
	my @children = children_of($pid);
	kill 'KILL', $pid, @children;
	my $at = time;				# later, or writes that still came through would count
	$self->wait_for(sub { !grep { alive($_) } $pid, @children }, 10, "n$i is dead");
	$self->forget_zombie($i, $pid);
	return $at;
}

sub kill_postmaster
{
	my ($self, $i) = @_;
	my $pid = $self->postmaster($i) or return;
	my @children = children_of($pid);
	my $at = time;
	kill 'KILL', $pid;
	$self->wait_for(sub { !grep { alive($_) } $pid, @children }, 30, "the orphans of n$i have gone");
	$self->forget_zombie($i, $pid);
	return $at;
}

sub alive
{
	my ($pid) = @_;
	my ($state) = slurp("/proc/$pid/stat") =~ /^\d+ \(.*\) (\S)/s;
	return defined $state && $state ne 'Z';
}

# A dead postmaster whose parent has not noticed yet still counts as running for
# the next one.  Containers have parents that never notice.
sub forget_zombie
{
	my ($self, $i, $pid) = @_;
	for (1 .. 20)
	{
		return unless -e "/proc/$pid";
		sleep 0.05;
	}
	my $node = $self->node($i);
	unlink "$node->{data}/postmaster.pid", "$self->{dir}/.s.PGSQL.$node->{sql}.lock";
}

# ---- asking ----

sub psql
{
	my ($conninfo, $query, %args) = @_;
	my ($out, $err) = ('', '');
	my $run = IPC::Run::start(
		[ "$bindir/psql", '-X', '-A', '-t', '-q', '-v', 'ON_ERROR_STOP=1',
			'-v', 'VERBOSITY=verbose', '-d', $conninfo, '-f', '-' ],
		'<', \$query, '>', \$out, '2>', \$err,
		IPC::Run::timer($args{timeout} || 120, exception => 'timed out'));
	my $done = eval { $run->finish; 1 };
	unless ($done)
	{
		$err .= $@;
		$run->kill_kill(grace => 1);
		return (255, $out, $err);
	}
	chomp $out;
	return ($run->full_result(0) == 0 ? 0 : 1, $out, $err);
}

sub conninfo
{
	my ($self, $i, $timeout) = @_;
	return 'host=' . $self->node($i)->{host} . ' port=' . $self->node($i)->{sql}
	  . ' user=postgres dbname=postgres connect_timeout=' . ($timeout || 60);
}

# All nodes; libpq finds the one that takes writes.
sub conninfo_rw
{
	my ($self, $timeout) = @_;
	return 'host=' . join(',', map { $self->node($_)->{host} } $self->all)
	  . ' port=' . join(',', map { $self->node($_)->{sql} } $self->all)
	  . ' user=postgres dbname=postgres target_session_attrs=read-write connect_timeout=' . ($timeout || 30);
}

# (exit code, stdout, stderr with SQLSTATEs)
sub sql_try
{
	my ($self, $i, $query, %args) = @_;
	return psql($self->conninfo($i, $args{connect}), $query, %args);
}

sub sql
{
	my ($self, $i, $query, %args) = @_;
	my ($code, $out, $err) = $self->sql_try($i, $query, %args);
	die "n$i: $query: $err" if $code != 0;
	return $out;
}

sub psql_rw
{
	my ($self, $query, %args) = @_;
	return psql($self->conninfo_rw($args{connect}), $query, %args);
}

# quantadb_status().state, or '' when nobody answers.
sub state
{
	my ($self, $i) = @_;
	return '' unless $self->postmaster($i);
	my ($code, $out) = $self->sql_try($i, 'SELECT state FROM quantadb_status()', timeout => 10, connect => 3);
	return $code == 0 ? $out : '';
}

# The same for an assertion of this moment: a machine that is slow to answer gets its time.
sub state_now
{
	my ($self, $i) = @_;
	return $self->sql($i, 'SELECT state FROM quantadb_status()');
}

# Number of the node that says it is primary, 0 when none does.
sub primary
{
	my ($self) = @_;
	for my $i ($self->all)
	{
		return $i if $self->state($i) eq 'primary';
	}
	return 0;
}

# The same, when there is one.
sub await_primary
{
	my ($self) = @_;
	my $p;
	$self->wait_for(sub { $p = $self->primary }, 60, 'a primary');
	return $p;
}

sub write_ok
{
	my ($self, $i) = @_;
	my ($code) = $self->sql_try($i,
		'BEGIN; CREATE TABLE qdb_probe (x int); DROP TABLE qdb_probe; COMMIT;', timeout => 15, connect => 3);
	return $code == 0;
}

# (HTTP status, body); status 0 when nobody answers.
sub http
{
	my ($self, $i, $path, @args) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'curl', '-s', '--noproxy', '*', '-m', '30', '-w', '\n%{http_code}', @args,
			'http://' . $self->node($i)->{host} . ':' . $self->node($i)->{http} . $path ],
		'<', \undef, '>', \$out, '2>', \$err);
	my ($body, $code) = $out =~ /^(.*)\n(\d+)$/s;
	return (defined $code ? $code + 0 : 0, $body);
}

# /cluster/journal as a list, oldest first; empty when nobody answers.
sub journal
{
	my ($self, $i) = @_;
	my ($code, $body) = $self->http($i, '/cluster/journal');
	my $j = $code == 200 ? eval { decode_json($body) } : undef;
	return ref $j eq 'HASH' ? $j->{journal} || [] : $j || [];
}

# /cluster/status as Perl data, undef when there is none.
sub status
{
	my ($self, $i) = @_;
	my ($code, $body) = $self->http($i, '/cluster/status');
	return $code == 200 ? eval { decode_json($body) } : undef;
}

# Polls until the condition holds; dies with what was waited for.  A node that answers with an
# error is polled again.  The timeout, in seconds on an idle machine, is a hint.
sub wait_for
{
	my ($self, $condition, $timeout, $what) = @_;
	my $until = time + 30 + 2 * ($timeout || 30);
	my $error;
	while (1)
	{
		my $holds = eval { $condition->() };
		$error = $@;
		return 1 if $holds;
		last if time > $until;
		sleep 0.05;
	}
	my $states = join(', ', map { "n$_ " . ($self->state($_) || "silent") } $self->all);
	die 'timed out waiting: ' . ($what || 'condition') . " ($states)" . ($error ? ": $error" : '');
}

# A test like Test::More's is() of what shows a moment after its cause: the value is
# asked for until it is right, or for a minute.
sub becomes
{
	my ($self, $ask, $want, $name) = @_;
	my $got;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	eval { $self->wait_for(sub { $got = $ask->(); defined $got && (ref $want ? $got =~ $want : $got eq $want) }, 30, $name); 1 }
	  or diag($@);
	return ref $want ? like($got, $want, $name) : is($got, $want, $name);
}

sub sql_becomes
{
	my ($self, $i, $query, $want, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $self->becomes(sub { $self->sql($i, $query) }, $want, $name);
}

# Everything that the primary has written is visible on node $i.
sub wait_replayed
{
	my ($self, $i, $primary, $timeout) = @_;
	my $lsn = $self->sql($primary, 'SELECT pg_current_wal_flush_lsn()');
	$self->wait_for(
		sub {
			my ($code, $out) = $self->sql_try($i, "SELECT pg_last_wal_replay_lsn() >= '$lsn'");
			return $code == 0 && $out eq 't';
		},
		$timeout || 30, "n$i replays up to $lsn");
}

# ---- end ----

sub teardown
{
	my ($self) = @_;
	# A test that has made the cluster smaller for a while may end right there.
	my @nodes = grep { $self->{nodes}[$_] } 1 .. $#{ $self->{nodes} };
	for my $i (@nodes)
	{
		my $pid = $self->postmaster($i) or next;
		kill 'STOP', $pid;
		kill 'KILL', $pid, children_of($pid);
	}
	for my $i (@nodes)
	{
		for (1 .. 100)
		{
			last unless $self->postmaster($i);
			sleep 0.05;
		}
	}
}

END
{
	if ($$ == $owner)
	{
		my $code = $?;
		stop_writers();
		$_->teardown for @clusters;
		# A server with assertions says so in its log only: its process comes back.
		for my $node (grep { defined } map { @{ $_->{nodes} } } @clusters)
		{
			my ($found) = slurp($node->{log}) =~ /^(.*(?:TRAP: |write past chunk end|ERROR: AddressSanitizer|runtime error: ).*)$/m or next;
			print "not ok - $node->{name} checks itself: $found\n";
			$code ||= 1;
		}
		my $clean = $code == 0 && Test::More->builder->is_passing && !$ENV{QUANTADB_KEEP};
		for my $cluster (@clusters)
		{
			if ($clean) { remove_tree($cluster->{dir}) }
			else { print STDERR "# data and logs are in $cluster->{dir}\n" }
		}
		$? = $code;
	}
}

# A psql that cannot connect ends before it reads its query.
$SIG{PIPE} = 'IGNORE';
$SIG{INT} = $SIG{TERM} = sub { exit 1 };

1;
