# QuantaTable.pm
#	Help for the tests of the storage access method: one server, connections that
#	stay open, the checks that every table must pass.
package QuantaTable;

use strict;
use warnings;
use DBI;
use QuantaCluster;
use Test::More;

# The access method under test; "heap" tries the tests themselves.
our $am = $ENV{QUANTADB_TEST_AM} || 'quantadb';

# server(conf): a server with the extension, and amcheck and pageinspect to look inside.
sub server
{
	my ($class, %args) = @_;
	my $self = bless { c => QuantaCluster->new(n => $args{n} || 1,
			conf => "fsync = off\nautovacuum = off\nmax_prepared_transactions = 10\nmax_wal_size = 2GB\n" . ($args{conf} || '')) }, $class;
	$self->{c}->create_first(1);
	$self->{c}->sql(1, 'SET client_min_messages = warning; CREATE EXTENSION quantadb; CREATE EXTENSION amcheck; CREATE EXTENSION pageinspect');
	return $self;
}

# A connection whose errors end the test.
sub connect_to
{
	my ($self, $node) = @_;
	my $port = $self->{c}->node($node || 1)->{sql};
	my $dbh = DBI->connect("dbi:Pg:dbname=postgres;host=127.0.0.1;port=$port", 'postgres', '',
		{ PrintError => 0, PrintWarn => 0, RaiseError => 1, pg_server_prepare => 0 });
	$dbh->do("SET default_table_access_method = $am") if ($node || 1) == 1;
	$dbh->do('SET client_min_messages = error');
	return $dbh;
}

sub value { my ($dbh, $sql) = @_; return ($dbh->selectrow_array($sql))[0] }

# What quantadb_check and amcheck find in a table and its indexes, one string.
sub problems
{
	my ($dbh, $table) = @_;
	my @found;
	if ($am eq 'quantadb')
	{
		push @found, map { join ' ', map { defined $_ ? $_ : '' } @$_ } @{$dbh->selectall_arrayref("SELECT * FROM quantadb_check('$table')")};
	}
	for my $index (@{$dbh->selectcol_arrayref("SELECT indexrelid::regclass FROM pg_index JOIN pg_class c ON c.oid = indexrelid
		JOIN pg_am a ON a.oid = c.relam WHERE indrelid = '$table'::regclass AND amname = 'btree'")})
	{
		eval { $dbh->do("SELECT bt_index_check('$index', true)"); 1 } or push @found, $@;
	}
	return join "\n", @found;
}

1;
