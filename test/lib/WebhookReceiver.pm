# WebhookReceiver.pm
#	A small HTTP server of its own process that writes down each POST it gets.
#
# new(secret, mode): "ok" answers 200, "fail" 500, "hang" takes the request and
# never answers.  restart(mode) keeps port and file.  events() returns what came,
# as Perl data, with {signature_ok} by the secret.
package WebhookReceiver;

use strict;
use warnings;
use Digest::SHA qw(hmac_sha256_hex);
use File::Temp qw(tempfile);
use IO::Socket::INET;
use JSON::PP;
use POSIX ();

my $owner = $$;
my @receivers;

sub new
{
	my ($class, %args) = @_;
	my ($handle, $file) = tempfile('webhook-XXXXXX', TMPDIR => 1);
	close $handle;
	my $self = bless { file => $file, secret => $args{secret}, port => 0 }, $class;
	$self->restart($args{mode} || 'ok');
	push @receivers, $self;
	return $self;
}

sub url { return "http://127.0.0.1:$_[0]{port}/hook/with/a/secret" }

sub restart
{
	my ($self, $mode) = @_;
	$self->stop;
	my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $self->{port},
		Listen => 16, ReuseAddr => 1) or die "listen: $!";
	$self->{port} = $listener->sockport;
	my $pid = fork();
	die "fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		$SIG{TERM} = 'DEFAULT';
		$self->serve($listener, $mode);
		POSIX::_exit(0);
	}
	$self->{pid} = $pid;
}

sub serve
{
	my ($self, $listener, $mode) = @_;
	my @kept;
	while (my $client = $listener->accept)
	{
		my ($head, $body) = ('', '');
		while (my $line = <$client>)
		{
			last if $line =~ /^\r?\n$/;
			$head .= $line;
		}
		my ($length) = $head =~ /^Content-Length: (\d+)/mi;
		# A sender that ends while it writes has not sent anything.
		next if !$length || (read($client, $body, $length) // 0) < $length;
		if ($mode eq 'hang') { push @kept, $client; next }
		my ($time) = $head =~ /^X-QuantaDB-Timestamp: (\d+)/mi;
		my ($signature) = $head =~ /^X-QuantaDB-Signature: sha256=([0-9a-f]+)/mi;
		my ($id) = $head =~ /^X-QuantaDB-Event-Id: (\S+)/mi;
		my $good = defined $time && defined $signature &&
		  $signature eq hmac_sha256_hex("$time.$body", $self->{secret});
		open(my $f, '>>', $self->{file}) or POSIX::_exit(1);
		syswrite($f, encode_json({ mode => $mode, body => $body, id => $id, signature_ok => $good ? 1 : 0 }) . "\n");
		close $f;
		my $status = $mode eq 'ok' ? '200 OK' : '500 No';
		print $client "HTTP/1.1 $status\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
		close $client;
	}
}

# What was answered with 200.
sub events
{
	my ($self) = @_;
	open(my $f, '<', $self->{file}) or return ();
	my @all = grep { $_->{mode} eq 'ok' } map { decode_json($_) } <$f>;
	return map { { %$_, %{ decode_json($_->{body}) } } } @all;
}

sub stop
{
	my ($self) = @_;
	return unless $self->{pid};
	kill 'KILL', $self->{pid};
	waitpid($self->{pid}, 0);
	delete $self->{pid};
}

END
{
	if ($$ == $owner)
	{
		my $code = $?;
		for my $receiver (@receivers)
		{
			$receiver->stop;
			unlink $receiver->{file};
		}
		$? = $code;
	}
}

1;
