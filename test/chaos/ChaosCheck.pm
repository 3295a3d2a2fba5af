# ChaosCheck.pm
#	What a history may not contain.
#
# Every checker takes the operations of a run and returns a list of anomalies,
# each a sentence; an empty list is what one hopes for.  They know nothing of
# clusters: test/unit feeds them histories with known anomalies.
#
# The dependency checker follows Adya's definitions (Generalized Isolation
# Level Definitions, 2000) over lists, as Elle does (Kingsbury and Alvaro, 2020): because an
# append never destroys what was there, a read shows the order of all writes before it.
package ChaosCheck;

use strict;
use warnings;

# Reads the history files of a run: a list of operations {kind, client, sequence,
# status, begin, end, words, result}.
sub read_history
{
	my (@files) = @_;
	my @operations;
	for my $file (@files)
	{
		open(my $in, '<', $file) or die "$file: $!";
		my $open;
		while (my $line = <$in>)
		{
			chomp $line;
			my ($kind, $client, $sequence, $event, $time, $words, $result) = split(/\t/, $line, 7);
			next unless defined $words || $event;
			if ($event eq 'invoke')
			{
				$open = { kind => $kind, client => $client, sequence => $sequence, status => 'unknown',
					begin => $time, end => undef, words => $words, result => '' };
				push @operations, $open;
			}
			elsif ($open && $open->{sequence} == $sequence)
			{
				$open->{status} = $event;
				$open->{end} = $time;
				$open->{result} = defined $result ? $result : '';
			}
		}
	}
	return @operations;
}

sub of_kind
{
	my ($kind, @operations) = @_;
	return grep { $_->{kind} eq $kind } @operations;
}

# Inserted numbers against what is there: acknowledged ones that are lost, and
# ones that are there although their transaction failed or never was.
sub check_set
{
	my ($what, $there, @operations) = @_;
	my %there = map { $_ => 1 } @$there;
	my %status = map { $_->{words} => $_->{status} } @operations;
	my @anomalies;
	for my $x (sort { $a <=> $b } keys %status)
	{
		push @anomalies, "lost: $what $x was acknowledged and is not there"
		  if $status{$x} eq 'ok' && !$there{$x};
		push @anomalies, "phantom: $what $x failed and is there"
		  if $status{$x} eq 'fail' && $there{$x};
	}
	push @anomalies, map { "phantom: $what $_ was never written" } grep { !exists $status{$_} } @$there;
	return @anomalies;
}

# Numbers of a sequence, drawn by inserts: acknowledged ones are there, under the name of who drew
# them, and none was given out twice.
sub check_sequence
{
	my ($there, @operations) = @_;
	my @anomalies;
	for my $op (@operations)
	{
		push @anomalies, "twice: a number of the sequence was there for $op->{words}: $op->{result}"
		  if $op->{status} eq 'fail' && $op->{result} =~ /^23505/;
		push @anomalies, "lost: number $op->{result} of $op->{words} is " . (defined $there->{ $op->{result} } ? "of $there->{ $op->{result} }" : 'not there')
		  if $op->{status} eq 'ok' && ($there->{ $op->{result} } || '') ne $op->{words};
	}
	return @anomalies;
}

# Every snapshot shows the whole sum.
sub check_bank
{
	my ($accounts, $balance, @audits) = @_;
	my @anomalies;
	for my $audit (grep { $_->{status} eq 'ok' } @audits)
	{
		my ($sum, $count) = split(/,/, $audit->{result});
		push @anomalies, "bank: $audit->{words} saw $sum in $count accounts at $audit->{begin}"
		  unless $count == $accounts && $sum == $accounts * $balance;
	}
	return @anomalies;
}

# Each write raised its register's version by one and says which it made, so versions are
# the order; what is left of linearizability is that real time agrees with it.
sub check_registers
{
	my (@operations) = @_;
	my @anomalies;
	my %by_key;
	for my $op (grep { $_->{status} eq 'ok' } @operations)
	{
		my ($type, $k) = split(/ /, $op->{words});
		my ($version, $value) = split(/ /, $op->{result});
		push @{ $by_key{$k} }, { %$op, type => $type, version => $version, value => $value };
	}
	for my $k (sort keys %by_key)
	{
		my %value_of;
		for my $op (@{ $by_key{$k} })
		{
			my $known = $value_of{ $op->{version} };
			push @anomalies, "register $k: version $op->{version} was $known and $op->{value}"
			  if defined $known && $known ne $op->{value};
			$value_of{ $op->{version} } = $op->{value};
		}
		my %writer;
		for my $op (grep { $_->{type} eq 'w' } @{ $by_key{$k} })
		{
			push @anomalies, "register $k: version $op->{version} was written twice"
			  if $writer{ $op->{version} }++;
		}
		# The greatest version that was complete before an operation began.
		my @ends = sort { $a->{end} <=> $b->{end} } @{ $by_key{$k} };
		my ($next, $greatest) = (0, -1);
		for my $op (sort { $a->{begin} <=> $b->{begin} } @{ $by_key{$k} })
		{
			while ($next < @ends && $ends[$next]{end} < $op->{begin})
			{
				$greatest = $ends[$next]{version} if $ends[$next]{version} > $greatest;
				$next++;
			}
			my $least = $op->{type} eq 'w' ? $greatest + 1 : $greatest;
			push @anomalies, "stale: register $k: client $op->{client} saw version $op->{version} at $op->{begin}"
			  . " after $greatest had been acknowledged"
			  if $op->{version} < $least;
		}
	}
	return @anomalies;
}

# ---- lists ----

sub elements { return grep { length } split(/,/, $_[0]) }

# The transactions of a history, with what each read and appended.
sub list_transactions
{
	my (@operations) = @_;
	my @transactions;
	for my $op (@operations)
	{
		my $t = { op => $op, status => $op->{status}, reads => [], appends => [], node => '' };
		if ($op->{kind} eq 'lists')
		{
			for my $word (split(/;/, $op->{words}))
			{
				my ($type, $k, $x) = split(/ /, $word);
				push @{ $t->{appends} }, [ $k, $x ] if $type eq 'a';
			}
		}
		else { $t->{node} = $op->{words} }
		if ($op->{status} eq 'ok')
		{
			for my $word (split(/;/, $op->{result}))
			{
				my ($type, $k, $list) = split(/ /, $word, 3);
				push @{ $t->{reads} }, [ $k, [ elements(defined $list ? $list : '') ] ];
			}
		}
		push @transactions, $t;
	}
	return @transactions;
}

# final: key => list text at the end.  level: the isolation level of the writers.
sub check_lists
{
	my ($final, $level, @operations) = @_;
	my @transactions = list_transactions(@operations);
	my @anomalies;
	my (%order, %writer);
	for my $k (keys %$final) { $order{$k} = [ elements($final->{$k}) ] }
	for my $t (@transactions)
	{
		$writer{ $_->[1] } = $t for @{ $t->{appends} };
		$order{ $_->[0] } ||= [] for @{ $t->{appends} }, @{ $t->{reads} };
	}

	my %acknowledged;
	for my $t (grep { $_->{status} eq 'ok' } @transactions)
	{
		push @{ $acknowledged{ $_->[0] } }, $_->[1] for @{ $t->{appends} };
	}
	for my $k (sort keys %order)
	{
		my %seen;
		for my $x (@{ $order{$k} })
		{
			push @anomalies, "lists: $x is twice in list $k" if $seen{$x}++;
			push @anomalies, "phantom: lists: $x in list $k was never written" unless $writer{$x};
			push @anomalies, "G1a: $x of a failed transaction is in list $k"
			  if $writer{$x} && $writer{$x}{status} eq 'fail';
		}
		push @anomalies, map { "lost: $_ was acknowledged and is not in list $k" }
		  grep { !$seen{$_} } @{ $acknowledged{$k} || [] };
	}
	# One transaction is everywhere or nowhere.
	for my $t (grep { $_->{status} eq 'unknown' } @transactions)
	{
		my %in = map { $_ => 1 } map { @{ $order{ $_->[0] } || [] } } @{ $t->{appends} };
		my $there = grep { $in{ $_->[1] } } @{ $t->{appends} };
		push @anomalies, "lists: half of client $t->{op}{client} sequence $t->{op}{sequence} is there"
		  if $there && $there < @{ $t->{appends} };
	}
	for my $t (@transactions)
	{
		push @anomalies, check_reads($t, \%order, \%writer);
	}
	return @anomalies if @anomalies;	# an order that does not hold gives cycles without end

	my @writers = grep { @{ $_->{appends} } || $_->{op}{kind} eq 'lists' } @transactions;
	push @anomalies, find_cycles(\%order, \%writer, $level, @writers);
	my %nodes = map { $_->{node} => 1 } grep { $_->{node} ne '' } @transactions;
	for my $node (sort keys %nodes)
	{
		# What clients on the primary read is left out: promised is one order per node.
		my @here = map { { %$_, origin => $_, reads => $_->{node} eq '' ? [] : $_->{reads} } }
		  grep { $_->{node} eq '' || $_->{node} eq $node } @transactions;
		my %at = map { $_->{origin} => $_ } @here;
		my %writer_here = map { $_ => $at{ $writer{$_} } } keys %writer;
		push @anomalies, find_cycles(\%order, \%writer_here, 'REPEATABLE READ', @here);
	}
	return @anomalies;
}

# Reads are prefixes of the order, but for what the reader itself appended.  A replica may
# also show a commit that nobody acknowledged and that a failover then took back
# (eventual reads); such a read says nothing about the order and is left out of it.
sub check_reads
{
	my ($t, $order, $writer) = @_;
	my @anomalies;
	my %own = map { $_->[1] => 1 } @{ $t->{appends} };
	my $who = "client $t->{op}{client} sequence $t->{op}{sequence}";
	for my $read (@{ $t->{reads} })
	{
		my ($k, $list) = @$read;
		my @foreign = grep { !$own{$_} } @$list;
		for my $i (0 .. $#foreign)
		{
			my $x = $foreign[$i];
			my $there = $order->{$k}[$i];
			if ($writer->{$x} && $writer->{$x}{status} eq 'fail')
			{
				push @anomalies, "G1a: $who read $x of a failed transaction in list $k";
				last;
			}
			if (!defined $there || $there ne $x)
			{
				if ($t->{node} ne '' && $writer->{$x} && $writer->{$x}{status} eq 'unknown')
				{
					$t->{reads} = [];
					return;
				}
				push @anomalies, "lost: $who read $x at place $i of list $k, where "
				  . (defined $there ? "$there is" : 'nothing is') . ' at the end';
				last;
			}
		}
		my $last = $foreign[-1];
		if (defined $last && $writer->{$last})
		{
			my @of_writer = map { $_->[1] } grep { $_->[0] == $k } @{ $writer->{$last}{appends} };
			push @anomalies, "G1b: $who read $last in list $k, which its writer went on from"
			  if @of_writer && $of_writer[-1] ne $last;
		}
	}
	return @anomalies;
}

# Edges ww, wr and rw between transactions; a cycle is named by the edges it needs.
sub find_cycles
{
	my ($order, $writer, $level, @transactions) = @_;
	my (%place, %edges);
	for my $k (keys %$order)
	{
		my $list = $order->{$k};
		for my $i (0 .. $#$list)
		{
			$place{"$k $list->[$i]"} = $i;
			add_edge(\%edges, 'ww', $writer->{ $list->[ $i - 1 ] }, $writer->{ $list->[$i] }) if $i > 0;
		}
	}
	for my $t (@transactions)
	{
		my %own = map { $_->[1] => 1 } @{ $t->{appends} };
		for my $read (@{ $t->{reads} })
		{
			my ($k, $list) = @$read;
			my @foreign = grep { !$own{$_} } @$list;
			my $next = @foreign;
			add_edge(\%edges, 'wr', $writer->{ $foreign[-1] }, $t) if @foreign;
			$next++ while $next < @{ $order->{$k} } && $own{ $order->{$k}[$next] };
			add_edge(\%edges, 'rw', $t, $writer->{ $order->{$k}[$next] }) if $next < @{ $order->{$k} };
		}
	}
	my @anomalies;
	for my $class ([ 'G0', { ww => 1 }, 0 ], [ 'G1c', { ww => 1, wr => 1 }, 0 ],
		[ 'G-single', { ww => 1, wr => 1 }, 1 ], [ 'G2', { ww => 1, wr => 1, rw => 1 }, 0 ])
	{
		my ($name, $allowed, $one_rw) = @$class;
		next if $name eq 'G2' && $level ne 'SERIALIZABLE';
		next if $name eq 'G-single' && $level eq 'READ COMMITTED';
		my $cycle = $one_rw ? cycle_with_one_rw(\%edges) : any_cycle(\%edges, $allowed);
		push @anomalies, "$name: " . join(' -> ', map { "$_->{op}{client}/$_->{op}{sequence}" } @$cycle) if $cycle;
		last if @anomalies;
	}
	return @anomalies;
}

sub add_edge
{
	my ($edges, $type, $from, $to) = @_;
	return if !$from || !$to || $from == $to;
	$edges->{$from}{node} = $from;
	$edges->{$to}{node} ||= $to;
	$edges->{$from}{out}{$type}{$to} = $to;
}

sub successors
{
	my ($edges, $t, $allowed) = @_;
	my $out = $edges->{$t}{out} || {};
	return map { values %{ $out->{$_} || {} } } sort keys %$allowed;
}

# Depth first without recursion: histories are long.
sub any_cycle
{
	my ($edges, $allowed) = @_;
	my %state;
	for my $start (sort keys %$edges)
	{
		next if $state{$start};
		my @path = ([ $edges->{$start}{node}, [ successors($edges, $start, $allowed) ] ]);
		$state{$start} = 1;
		while (@path)
		{
			my $top = $path[-1];
			my $next = shift @{ $top->[1] };
			if (!$next)
			{
				$state{ $top->[0] } = 2;
				pop @path;
				next;
			}
			my $seen = $state{$next} || 0;
			if ($seen == 1)
			{
				my @cycle = map { $_->[0] } @path;
				shift @cycle while $cycle[0] != $next;
				return [ @cycle, $next ];
			}
			next if $seen;
			$state{$next} = 1;
			push @path, [ $next, [ successors($edges, $next, $allowed) ] ];
		}
	}
	return undef;
}

# From the far end of each rw edge, is its near end reachable by ww and wr alone?
sub cycle_with_one_rw
{
	my ($edges) = @_;
	my $allowed = { ww => 1, wr => 1 };
	for my $start (sort keys %$edges)
	{
		my $from = $edges->{$start}{node};
		for my $to (values %{ ($edges->{$start}{out} || {})->{rw} || {} })
		{
			my %came = ($to => undef);
			my @queue = ($to);
			while (my $t = shift @queue)
			{
				if ($t == $from)
				{
					my @cycle = ($t);
					while (my $before = $came{ $cycle[0] }) { unshift @cycle, $before }
					return [ $from, @cycle ];
				}
				for my $next (successors($edges, $t, $allowed))
				{
					next if exists $came{$next};
					$came{$next} = $t;
					push @queue, $next;
				}
			}
		}
	}
	return undef;
}

# ---- the journal ----

# Rows [epoch, event, node]: each epoch has one seat, opened by its holder only.
sub check_journal
{
	my (@rows) = @_;
	my (%seat, @anomalies);
	for my $row (@rows)
	{
		my ($epoch, $event, $node) = @$row;
		if ($event eq 'seat')
		{
			push @anomalies, "journal: epoch $epoch has seats $seat{$epoch} and $node"
			  if defined $seat{$epoch} && $seat{$epoch} ne $node;
			$seat{$epoch} = $node;
		}
		push @anomalies, "journal: epoch $epoch was opened by $node, its seat is $seat{$epoch}'s"
		  if $event eq 'gate_open' && defined $seat{$epoch} && $seat{$epoch} ne $node;
	}
	return @anomalies;
}

1;
