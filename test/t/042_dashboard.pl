# The page in a real browser: it names the new primary soon after a kill, acts only
# when asked twice, and says when it is old.
use strict;
use warnings;
use File::Temp qw(tempdir);
use HTTP::Tiny;
use JSON::PP;
use MIME::Base64;
use QuantaCluster;
use Test::More;
use Time::HiRes qw(time sleep);

my $chromedriver = (grep { -x } '/usr/bin/chromedriver', '/usr/lib/chromium/chromedriver')[0];
plan skip_all => 'chromium-driver is not installed' unless $chromedriver && -x '/usr/bin/chromium';

my $profile = tempdir(CLEANUP => 1);
my ($port) = QuantaCluster::free_ports(1);
my ($driver, $session);
my $http = HTTP::Tiny->new(timeout => 60);
delete @ENV{ grep { /_proxy$/i } keys %ENV };

# One WebDriver command; dies with what the browser says.
sub wd
{
	my ($method, $path, $body) = @_;
	my $answer = $http->request($method, "http://127.0.0.1:$port" . ($session ? "/session/$session" : '') . $path,
		{ headers => { 'Content-Type' => 'application/json' }, $method eq 'POST' ? (content => encode_json($body || {})) : () });
	my $json = eval { decode_json($answer->{content}) } || {};
	die "WebDriver $method $path: $answer->{status} $answer->{content}" unless $answer->{success};
	return $json->{value};
}

sub js { my ($script, @args) = @_; return wd('POST', '/execute/sync', { script => $script, args => \@args }) }
sub text { return js("const e = document.getElementById('$_[0]'); return e && !e.hidden ? e.innerText : ''") }

sub screenshot
{
	my ($name, $width) = @_;
	return unless $ENV{QUANTADB_SCREENSHOTS};
	wd('POST', '/window/rect', { width => $width, height => 1200 });
	open(my $f, '>', "$ENV{QUANTADB_SCREENSHOTS}/$name-$width.png") or return;
	print $f decode_base64(wd('GET', '/screenshot'));
	close $f;
}

sub start_browser
{
	$driver = fork();
	die "fork: $!" unless defined $driver;
	if ($driver == 0)
	{
		setpgrp(0, 0);
		$ENV{HOME} = $profile;
		open(STDIN, '<', '/dev/null');
		open(STDOUT, '>>', "$profile/driver.log");
		open(STDERR, '>&', \*STDOUT);
		exec($chromedriver, "--port=$port") or POSIX::_exit(127);
	}
	my $until = time + 60;
	while (1)
	{
		my $answer = $http->get("http://127.0.0.1:$port/status");
		last if $answer->{success};
		die 'chromedriver does not start' if time > $until;
		sleep 0.1;
	}
	my $new = wd('POST', '/session', { capabilities => { alwaysMatch => { 'goog:loggingPrefs' => { browser => 'ALL' },
		'goog:chromeOptions' => { args => [ '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic',
			'--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
			'--disable-dev-shm-usage', '--window-size=1200,1200', "--user-data-dir=$profile/data" ] } } } });
	$session = $new->{sessionId};
}

END
{
	my $code = $?;
	if ($driver)
	{
		eval { wd('DELETE', '') } if $session;
		kill 'KILL', -$driver;
		waitpid($driver, 0);
	}
	$? = $code;
}

my $c = QuantaCluster->new_cluster(n => 3);
my $p = $c->primary;
my ($r, $s) = grep { $_ != $p } $c->all;
my $token = $c->sql($p, "SELECT quantadb_api_token('admin')");
start_browser();

# ---- what it shows ----
wd('POST', '/url', { url => 'http://127.0.0.1:' . $c->node($r)->{http} . '/' });
$c->wait_for(sub { text('headline') eq "n$p is the primary" }, 30, 'the page names the primary');
$c->becomes(sub { text('detail') }, qr/All is well/, 'and is calm');
$c->becomes(sub { text('nodes') }, qr/n1.*n2.*n3/s, 'all nodes are there');
$c->becomes(sub { text('journal') }, qr/primary|node joined/, 'and the journal');
is(js('return document.querySelectorAll("#nodes button").length'), 0, 'no buttons without a token');
is(js('return performance.getEntriesByType("resource").filter(e => !e.name.startsWith(location.origin) && !e.name.startsWith("data:")).length'), 0,
	'nothing is loaded from elsewhere');
my (undef, $headers) = $c->http($r, '/', '-i', '-H', 'Accept: text/html');
like($headers, qr/Content-Security-Policy: default-src 'none'.*script-src 'sha256-/, 'a policy allows its own script only');
is(js('document.body.insertAdjacentHTML("beforeend", "<img id=evil src=x onerror=\"window.ran=1\">"); return window.ran === undefined'), JSON::PP::true,
	'injected markup does not run');
js('document.getElementById("evil").remove()');
screenshot('well', 1200);
screenshot('well', 400);
ok(js('return document.documentElement.scrollWidth <= window.innerWidth'), 'no sideways scrolling on a phone');

# ---- kill the primary: a page names the new one within 3 s of its own node ----
my $asked = time;
text('headline') for 1 .. 3;
my $call = (time - $asked) / 3;
my $at = $c->kill_all($p);
my ($new, $known) = ('');
$c->wait_for(sub {
	my $says = ($c->status($r) || {})->{primary};
	$known ||= time if ($says || "n$p") ne "n$p";
	($new) = text('headline') =~ /^(n\d) is the primary$/;
	return ($new || "n$p") ne "n$p";
}, 30, 'the page names the new primary');
my $named = time;
$known ||= $named;
diag(sprintf('the page named the new primary after %.1f s, its node after %.1f s', $named - $at, $known - $at));
# What a busy machine needs to look at the page is not the page's.
cmp_ok($named - $known, '<', 3 + 10 * $call, 'within 3 s');
$c->wait_for(sub { text('nodes') =~ /not heard/ }, 30, 'the lost node is shown as not heard');
$c->wait_for(sub { text('journal') =~ /node lost: n$p/ }, 30, 'the journal says so');
$c->becomes(sub { text('outage') }, qr/\d+ ms|\d s/, 'how long nobody could write');
screenshot('lost', 1200);
screenshot('lost', 400);

# ---- buttons, with a token, that ask first ----
$c->start($p);
$c->wait_for(sub { $c->state($p) ne '' && js('return last.nodes.every(n => n.connected)') }, 60, 'it is back');
js('document.getElementById("control").open = true; document.getElementById("token").value = arguments[0]; document.getElementById("token_form").requestSubmit()', $token);
$c->wait_for(sub { js('return document.querySelectorAll("#nodes button").length') == 4 }, 30, 'buttons appear');
js('document.getElementById("pause").focus()');
screenshot('token', 1200);
js('document.getElementById("pause").click()');
ok(js('return document.getElementById("ask").open'), 'pause asks first');
screenshot('ask', 400);
is(js('return document.activeElement.id'), 'ask_no', 'and the keyboard is on Cancel');
js('document.getElementById("ask_no").click()');
is($c->sql($r, 'SELECT paused FROM quantadb_status()'), 'f', 'cancel does nothing');
js('document.getElementById("pause").click(); document.getElementById("ask_yes").click()');
$c->wait_for(sub { $c->sql($r, 'SELECT paused FROM quantadb_status()') eq 't' }, 30, 'pause pauses');
$c->wait_for(sub { text('auto') eq 'paused' }, 30, 'and is shown');
js('document.getElementById("pause").click(); document.getElementById("ask_yes").click()');
$c->wait_for(sub { $c->sql($r, 'SELECT paused FROM quantadb_status()') eq 'f' }, 30, 'resume resumes');
my $other = $new eq "n$r" ? "n$s" : "n$r";
$c->wait_for(sub { js('const b = [...document.querySelectorAll("#nodes button")].find(b => b.dataset.key === "promote " + arguments[0]); return b && !b.disabled', $other) }, 30,
	"$other can be chosen");
js('[...document.querySelectorAll("#nodes button")].find(b => b.dataset.key === "promote " + arguments[0]).click(); document.getElementById("ask_yes").click()', $other);
$c->wait_for(sub { text('headline') eq "$other is the primary" }, 30, 'a switchover by button');
pass('a switchover by button');

# ---- the node of the page loses its peers, then goes away itself ----
my ($page) = $r;
$c->kill_all($_) for grep { $_ != $page } $c->all;
$c->wait_for(sub { text('headline') =~ /hears no majority/ }, 30, 'the page says that its node is alone');
screenshot('alone', 1200);
$c->kill_all($page);
$c->wait_for(sub { text('headline') =~ /does not answer/ && text('stale') =~ /old/ }, 30, 'and that its picture is old');
screenshot('stale', 400);
like(js('return [...document.querySelectorAll("#stale a")].map(a => a.href).join(" ")'),
	qr{http://127.0.0.1:\d+/ http://127.0.0.1:\d+/}, 'with links to the others');
my $log = wd('POST', '/se/log', { type => 'browser' });
is(join("\n", grep { m{//127\.0\.0\.1:} && !/ERR_|x - Failed|inline event handler|Content Security Policy|503/ } map { $_->{message} } @$log), '', 'no errors of the script');

done_testing();
