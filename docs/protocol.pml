/*
 * protocol.pml - bounded model of QuantaDB's replication protocol.
 *
 * Read protocol.md first.  Raft is taken as given: OPEN_EPOCH, REPORT, SEAT and
 * membership commands are atomic and seen by everyone who looks.  What is modelled
 * is what Raft does not order: WAL that is written, flushed, sent and received,
 * acks under way, promises, crashes.
 *
 * A log entry is the epoch of its writer; entry i of epoch e is the same
 * bytes everywhere, because an epoch has one writer in one boot (I1).  The first
 * entry that an epoch writes is its epoch record.
 *
 * Mutations, each of which must give a counterexample:
 *   NO_MATCH          a receiver streams and acks without log matching (I3)
 *   VOLATILE_PROMISE  a crash forgets the promise (I2)
 *   LSN_ONLY          reports are compared by LSN alone (I6)
 *   SEND_UNFLUSHED    WAL is sent before the primary flushed it (I4)
 *   OLD_ACKS          acks of another epoch count (I5)
 *   NO_GATE           a new primary opens without its record on a quorum (I8)
 *   NO_CLOSE          a membership change needs no closing (I13)
 *   SHORT_LEASES      a voter counts a lease shorter than the holder (I9)
 *
 * LEASES adds strict reads: a voter's grant ends after
 * the holder's idea of it, and keeps the voter from reporting.
 * JOINING starts with one voter and adds two, one numbered change each.
 */

#define N 3
#ifndef E
#define E 3						/* epochs */
#endif
#ifndef L
#define L 4						/* entries, epoch records included */
#endif
#ifndef CRASHES
#define CRASHES 1
#endif

#define LOG(n, i)	log[(n) * L + (i)]

byte	log[N * L];				/* epoch of each entry */
byte	wr[N];					/* written */
byte	fl[N];					/* flushed; survives a crash */
byte	promised[N];
byte	conn[N];				/* epoch it streams under, 0: none */
byte	seat[N];				/* epoch it is primary of, 0: none */
byte	ack_epoch[N];			/* the ack under way from this node */
byte	ack_len[N];
byte	got[N * N];				/* acks from node i that primary p has counted */
byte	clen[N];				/* quorum position of a primary; never back */
bool	gate[N];				/* a primary's gate */

byte	epoch = 1;				/* replicated state */
bool	is_open = false;
byte	holder = 0;
bool	boot_ok = true;			/* the boot that the seat names still runs */
byte	fork = 0;
bool	reported[N];
byte	rep_epoch[N];
byte	rep_len[N];

byte	number = 0;				/* membership */
bool	closed = true;
byte	applied = 0;			/* the primary's applied number */

byte	committed[L];			/* ghost: epoch of an acknowledged entry */
byte	acked_in[L];			/* ghost: the least epoch that acknowledged it */
byte	crashes = 0;
#ifdef LEASES
bool	lease_held[N];			/* the primary counts on n's grant */
bool	lease_given[N];			/* n's grant lives, by its own clock */
byte	lease_to[N];			/* the epoch that it was for */
#define LEASE_BLOCKS(n)	(lease_given[n] && lease_to[n] < epoch)
#else
#define LEASE_BLOCKS(n)	false
#endif

#ifdef JOINING
#define VOTER(n, num)	((n) <= (num))
#define NEED(num)		(((num) + 1) / 2 + 1)
#else
#define VOTER(n, num)	true
#define NEED(num)		2
#endif

/* Which flushed lengths count for the primary p at length len. */
#define HAS(n, p, len)		(((n) == (p) -> fl[n] : got[(p) * N + (n)]) >= (len))
#define COUNT(p, len, num)	( \
	((VOTER(0, num) && HAS(0, p, len)) -> 1 : 0) + \
	((VOTER(1, num) && HAS(1, p, len)) -> 1 : 0) + \
	((VOTER(2, num) && HAS(2, p, len)) -> 1 : 0))
#define QUORUM(p, len, num)	(COUNT(p, len, num) >= NEED(num))

#define REPORTS(num)	( \
	((VOTER(0, num) && reported[0]) -> 1 : 0) + \
	((VOTER(1, num) && reported[1]) -> 1 : 0) + \
	((VOTER(2, num) && reported[2]) -> 1 : 0))
#ifdef NO_CLOSE
#define ENOUGH_REPORTS	(REPORTS(number) >= NEED(number))
#define MAY_CHANGE		true
#else
#define ENOUGH_REPORTS	(REPORTS(number) >= NEED(number) && \
						 (closed || REPORTS(number - 1) >= NEED(number - 1)))
#define MAY_CHANGE		closed
#endif
#define QUORUM_NOW(p, len)	QUORUM(p, len, applied)

#ifdef LSN_ONLY
#define BEATS(a, b)	(rep_len[a] > rep_len[b])
#else
#define BEATS(a, b)	(rep_epoch[a] > rep_epoch[b] || \
					 (rep_epoch[a] == rep_epoch[b] && rep_len[a] > rep_len[b]))
#endif
#define NOT_BEATEN(x, o)	(!reported[o] || !BEATS(o, x))

/* p holds n's promised epoch, and its epoch record is flushed. */
#define OPENED(p)	(seat[p] != 0 && seat[p] == promised[n] && LOG(p, fl[p] - 1) == seat[p])
#ifdef SEND_UNFLUSHED
#define SENDS(p)	(promised[n] == conn[n] && seat[p] == conn[n] && wr[n] < wr[p])
#else
#define SENDS(p)	(promised[n] == conn[n] && seat[p] == conn[n] && wr[n] < fl[p])
#endif

/* Scratch; always zero between steps, so it costs no states. */
byte	i, k;

inline common_prefix(m, p)
{
	i = 0;
	do
	:: i < wr[m] && i < fl[p] && LOG(m, i) == LOG(p, i) -> i++
	:: else -> break
	od
}

/* I7: whoever opens has every entry that an earlier epoch acknowledged. */
inline check_committed(p)
{
	k = 0;
	do
	:: k < L ->
		assert(committed[k] == 0 || acked_in[k] >= seat[p] ||
			   (k < wr[p] && LOG(p, k) == committed[k]));
		k++
	:: else -> break
	od;
	k = 0
}

inline advance(p)
{
	/* longest length that the quorum has; never back */
	i = clen[p];
	do
	:: i < fl[p] && QUORUM_NOW(p, i + 1) -> i++
	:: else -> break
	od;
	clen[p] = i; i = 0
}

inline leave(n)
{
	seat[n] = 0; clen[n] = 0; gate[n] = false;
	got[n * N] = 0; got[n * N + 1] = 0; got[n * N + 2] = 0
}

proctype node(byte n)
{
	byte p;
end:
	do
	/* ---- as primary ---- */
	:: atomic { seat[n] != 0 && gate[n] && wr[n] < L ->
		LOG(n, wr[n]) = seat[n]; wr[n]++ }
	:: atomic { wr[n] > fl[n] -> fl[n] = wr[n] }
	:: atomic { seat[n] != 0 && applied < number -> applied = number }
	/* ack-receive */
	:: atomic { seat[n] != 0 && ack_epoch[(n + 1) % N] != 0 -> p = (n + 1) % N; goto receive }
	:: atomic { seat[n] != 0 && ack_epoch[(n + 2) % N] != 0 -> p = (n + 2) % N; goto receive }
	/* quorum moves: open the gate, then acknowledge */
	:: atomic { seat[n] != 0 && clen[n] < fl[n] && QUORUM_NOW(n, clen[n] + 1) ->
		advance(n);
		/* I8: only the epoch record of one's own epoch opens */
		if
		:: !gate[n] && LOG(n, clen[n] - 1) == seat[n] -> check_committed(n); gate[n] = true
		:: else -> skip
		fi;
		/* I5: acknowledge what the quorum has, once the gate is open */
		if
		:: gate[n] ->
			k = 0;
			do
			:: k < clen[n] ->
				assert(committed[k] == 0 || committed[k] == LOG(n, k));
				if
				:: committed[k] == 0 || acked_in[k] > seat[n] -> acked_in[k] = seat[n]
				:: else -> skip
				fi;
				committed[k] = LOG(n, k); k++
			:: else -> break
			od;
			k = 0
		:: else -> skip
		fi }

	/* ---- as standby ---- */
	/*
	 * Connect: log matching (I3); a tail past the fork goes (I10).  What n has
	 * applied of the replicated state may be old: only its promise counts.
	 */
	:: atomic { seat[n] == 0 && conn[n] == 0 && OPENED((n + 1) % N) -> p = (n + 1) % N; goto connect }
	:: atomic { seat[n] == 0 && conn[n] == 0 && OPENED((n + 2) % N) -> p = (n + 2) % N; goto connect }
	/* receive one entry of flushed WAL (I4) */
	:: atomic { conn[n] != 0 && SENDS((n + 1) % N) -> LOG(n, wr[n]) = LOG((n + 1) % N, wr[n]); wr[n]++ }
	:: atomic { conn[n] != 0 && SENDS((n + 2) % N) -> LOG(n, wr[n]) = LOG((n + 2) % N, wr[n]); wr[n]++ }
	/* ack-send: under the same check as the promise (I2) */
	:: atomic { conn[n] != 0 && promised[n] == conn[n] && fl[n] > 0 &&
		!(ack_epoch[n] == conn[n] && ack_len[n] == fl[n]) ->
		ack_epoch[n] = conn[n]; ack_len[n] = fl[n] }

	/* ---- failover ---- */
	:: atomic { epoch < E && n == 0 ->
		epoch++; is_open = true; boot_ok = false;
		reported[0] = false; reported[1] = false; reported[2] = false;
		rep_epoch[0] = 0; rep_epoch[1] = 0; rep_epoch[2] = 0;
		rep_len[0] = 0; rep_len[1] = 0; rep_len[2] = 0 }
	/* fence and promise */
	:: atomic { promised[n] < epoch ->
		if
		:: seat[n] != 0 -> leave(n)
		:: else -> skip
		fi;
		conn[n] = 0; promised[n] = epoch }
	/* report: a scan of fsynced WAL (I6), no earlier than the lease allows (I9) */
	:: atomic { is_open && promised[n] == epoch && !reported[n] && !LEASE_BLOCKS(n) &&
		(VOTER(n, number) || (!closed && VOTER(n, number - 1))) ->
		fl[n] = wr[n]; reported[n] = true; rep_len[n] = fl[n];
		rep_epoch[n] = (fl[n] > 0 -> LOG(n, fl[n] - 1) : 0) }
	/* SEAT for me */
	:: atomic { is_open && reported[n] && VOTER(n, number) && ENOUGH_REPORTS &&
		NOT_BEATEN(n, (n + 1) % N) && NOT_BEATEN(n, (n + 2) % N) ->
		is_open = false; holder = n; fork = rep_len[n]; boot_ok = true }
	/* promote: the boot and the end that the seat names */
	:: atomic { !is_open && holder == n && boot_ok && promised[n] == epoch && seat[n] == 0 &&
		epoch > 1 && wr[n] == fork && fl[n] == fork && wr[n] < L ->
		boot_ok = false;		/* once */
		seat[n] = epoch; LOG(n, wr[n]) = epoch; wr[n]++;
		applied = number;
#ifdef NO_GATE
		check_committed(n); gate[n] = true
#endif
		}

	/* ---- crash: unflushed bytes may go ---- */
	:: atomic { crashes < CRASHES ->
		crashes++;
		k = fl[n];
		do :: k < wr[n] -> LOG(n, k) = 0; k++ :: else -> break od;
		k = 0;
		wr[n] = fl[n]; conn[n] = 0;
		if
		:: holder == n -> boot_ok = false
		:: else -> skip
		fi;
		reported[n] = reported[n] && holder != n;
#ifdef VOLATILE_PROMISE
		promised[n] = (fl[n] > 0 -> LOG(n, fl[n] - 1) : 0);
#endif
		if
		:: seat[n] != 0 -> leave(n)
		:: else -> skip
		fi }

#ifdef LEASES
	/* ---- leases: granted under the promise; the holder forgets first (I9) ---- */
	:: atomic { seat[(n + 1) % N] != 0 && promised[n] == seat[(n + 1) % N] && !lease_held[n] && epoch == promised[n] ->
		lease_held[n] = true; lease_given[n] = true; lease_to[n] = promised[n] }
	:: atomic { seat[(n + 2) % N] != 0 && promised[n] == seat[(n + 2) % N] && !lease_held[n] && epoch == promised[n] ->
		lease_held[n] = true; lease_given[n] = true; lease_to[n] = promised[n] }
	:: atomic { lease_held[n] -> lease_held[n] = false }
#ifdef SHORT_LEASES
	:: atomic { lease_given[n] -> lease_given[n] = false }
#else
	:: atomic { lease_given[n] && !lease_held[n] -> lease_given[n] = false }
#endif
	/* a strict read: itself and one more are a majority (I14) */
	:: atomic { seat[n] != 0 && gate[n] &&
		((lease_held[(n + 1) % N] && lease_to[(n + 1) % N] == seat[n]) ||
		 (lease_held[(n + 2) % N] && lease_to[(n + 2) % N] == seat[n])) ->
		k = 0;
		do
		:: k < L ->
			assert(committed[k] == 0 || (k < wr[n] && LOG(n, k) == committed[k])); k++
		:: else -> break
		od;
		k = 0 }
#endif

#ifdef JOINING
	/* ---- membership: one voter at a time (I13) ---- */
	:: atomic { n == 0 && number < N - 1 && !is_open && MAY_CHANGE ->
		number++; closed = false }
	:: atomic { !closed && seat[n] != 0 && seat[n] == epoch && !is_open && gate[n] && applied == number &&
		QUORUM(n, clen[n], number) -> closed = true }
#endif
	od;

connect:
	atomic {
#ifndef NO_MATCH
		common_prefix(n, p);
		wr[n] = i;
		if :: fl[n] > i -> fl[n] = i :: else -> skip fi;
		k = i;
		do :: k < L -> LOG(n, k) = 0; k++ :: else -> break od;
		i = 0; k = 0;
#endif
		conn[n] = promised[n]; p = 0;
		goto end
	}

receive:
	atomic {
		if
#ifdef OLD_ACKS
		:: true ->
#else
		:: ack_epoch[p] == seat[n] ->
#endif
			if
			:: ack_len[p] > got[n * N + p] -> got[n * N + p] = ack_len[p]
			:: else -> skip
			fi
		:: else -> skip
		fi;
		ack_epoch[p] = 0; ack_len[p] = 0; p = 0;
		goto end
	}
}

init
{
	atomic {
		/* epoch 1 is open on node 0, its record on every disk */
		k = 0;
		do
		:: k < N ->
			LOG(k, 0) = 1; wr[k] = 1; fl[k] = 1; promised[k] = 1; k++
		:: else -> break
		od;
		k = 0;
		seat[0] = 1; committed[0] = 1; acked_in[0] = 1; clen[0] = 1; gate[0] = true;
		run node(0); run node(1); run node(2)
	}
}
