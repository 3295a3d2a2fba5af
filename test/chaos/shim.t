# The spoiled disk forgets what was not synced, and nothing else; the spoiled clock runs as
# it was told.
use strict;
use warnings;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Temp qw(tempdir);
use Test::More;
use Time::HiRes;

my $source = dirname(abs_path($0)) . '/shim.c';
my $dir = tempdir('shim-XXXXXX', TMPDIR => 1, CLEANUP => 1);
my ($shim, $data) = ("$dir/orders", "$dir/data");
mkdir $_ for $shim, $data, "$data/quantadb";
system('gcc', '-O2', '-Wall', '-Wextra', '-Werror', '-shared', '-fPIC', '-o', "$dir/shim.so", $source, '-ldl') == 0 or die;
system('gcc', '-O2', '-Wall', '-Wextra', '-Werror', '-DSHIM_PROGRAM', '-o', "$dir/shim", $source) == 0 or die;

sub put { my ($path, $text) = @_; open(my $f, '>', $path) or die "$path: $!"; print $f $text; close $f }
sub get { my ($path) = @_; open(my $f, '<', $path) or return 'none'; local $/; return <$f> }
sub order { system("$dir/shim", $shim, @_) == 0 or die "@_" }

# Runs Perl with the shim below it; what it prints.
sub below
{
	my ($code) = @_;
	local %ENV = (%ENV, LD_PRELOAD => "$dir/shim.so", QDB_SHIM => $shim, QDB_SHIM_DATA => $data);
	open(my $out, '-|', $^X, '-MIO::Handle', '-MFcntl', '-MTime::HiRes', '-e', "chdir '$data'; $code") or die;
	local $/;
	my $said = <$out>;
	close $out;
	return $said;
}

sub lose { my ($seed) = @_; return `"$dir/shim" $shim lose $seed` }

put("$shim/control", "\0" x 4096);
order('set', 'undo=1');

put("$data/a", 'before' x 10);
below(q{sysopen(F, 'a', O_WRONLY); syswrite(F, 'AFTER', 5); sysseek(F, 60, 0); syswrite(F, 'longer'); exit});
is(get("$data/a"), 'AFTERe' . 'before' x 9 . 'longer', 'a write is there at once');
like(lose(0), qr/^2 changes lost of 1 files/, 'the power goes');
is(get("$data/a"), 'before' x 10, 'a write that was not synced is gone');

below(q{sysopen(F, 'a', O_WRONLY); syswrite(F, 'SAFE!', 5); F->sync; syswrite(F, 'gone'); exit});
lose(0);
is(get("$data/a"), 'SAFE!e' . 'before' x 9, 'a write that was synced is not, the one after it is');

below(q{sysopen(F, 'a', O_WRONLY | O_TRUNC); syswrite(F, 'x'); exit});
lose(0);
is(get("$data/a"), 'SAFE!e' . 'before' x 9, 'nor is what was cut off');

put("$data/quantadb/promise", 'old');
below(q{sysopen(F, 'quantadb/new', O_WRONLY | O_CREAT); syswrite(F, 'new'); F->sync; rename('quantadb/new', 'quantadb/promise'); exit});
is(get("$data/quantadb/promise"), 'new', 'a file is replaced');
lose(0);
is(get("$data/quantadb/promise"), 'old', 'and is the old one, when its folder was not synced');
is(get("$data/quantadb/new"), 'none', 'and the new one was never made');

below(q{sysopen(F, 'quantadb/new', O_WRONLY | O_CREAT); syswrite(F, 'new'); F->sync; rename('quantadb/new', 'quantadb/promise');
	sysopen(D, 'quantadb', O_RDONLY | O_DIRECTORY); D->sync; exit});
lose(0);
is(get("$data/quantadb/promise"), 'new', 'but stays when it was');
below(q{unlink('quantadb/promise')});
lose(0);
is(get("$data/quantadb/promise"), 'new', 'so does a file whose removal was not synced');


put("$data/$_", 'old') for qw(b c);
below(q{rename('b', 'd'); unlink('c'); truncate('a', 3); exit});
lose(0);
is(join(' ', map { get("$data/$_") } qw(b c d)), 'none none old', 'entries of other folders are left alone');
is(get("$data/a"), 'SAFE!e' . 'before' x 9, 'but not the files');
order('set', 'undo=2');
put("$data/c", 'old');
below(q{rename('d', 'b'); unlink('c'); exit});
lose(0);
is(join(' ', map { get("$data/$_") } qw(b c d)), 'none old old', 'unless it was said so');
below(q{rename('d', 'b'); sysopen(D, '.', O_RDONLY | O_DIRECTORY); D->sync; exit});
lose(0);
is(join(' ', map { get("$data/$_") } qw(b c d)), 'old old none', 'nor then, when the data directory was synced');

order('set', 'path=/a', 'full=1');
is(below(q{sysopen(F, 'a', O_WRONLY); print defined syswrite(F, 'y', 1) ? 'fits' : 'full'; sysseek(F, 0, 2); print defined syswrite(F, 'y', 1) ? 'fits' : 'full'}),
	'fitsfull', 'a full disk takes what does not grow');
order('set', 'full=0', 'sync_fail=1');
is(below(q{sysopen(F, 'a', O_WRONLY); print F->sync ? 'synced' : "$!", ' ', F->sync ? 'synced' : "$!"}), 'Input/output error synced', 'one fsync fails');
order('set', 'sync_delay_ms=300');
cmp_ok(below(q{$t = Time::HiRes::time; sysopen(F, 'a', O_WRONLY); F->sync; print Time::HiRes::time - $t}), '>', 0.3, 'a slow one');
order('set', 'sync_delay_ms=0', 'rate=2');
# Two clocks are not read at one moment, and less so on a busy machine: one good measurement is enough.
my ($rate, $fake, $true);
for (1 .. 10)
{
	$rate = below(q{use Time::HiRes; $t = Time::HiRes::clock_gettime(Time::HiRes::CLOCK_MONOTONIC); open(U, '/proc/uptime'); ($u) = split / /, <U>;
		select(undef, undef, undef, 2); print Time::HiRes::clock_gettime(Time::HiRes::CLOCK_MONOTONIC) - $t, ' '; open(U, '/proc/uptime'); ($v) = split / /, <U>; print $v - $u});
	($fake, $true) = split(/ /, $rate);
	last if abs($fake / $true - 2) < 0.2;
}
cmp_ok(abs($fake / $true - 2), '<', 0.2, "two seconds take one at rate 2 ($rate)");
order('set', 'rate=1', 'jump_ms=3600000');
cmp_ok(abs(below(q{print Time::HiRes::time}) - Time::HiRes::time() - 3600), '<', 60, 'the time of day jumps');
done_testing();
