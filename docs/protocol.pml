/*
 * protocol.pml - bounded model of QuantaDB's replication protocol.
 *
 * Read protocol.md first.  Raft is taken as given: OPEN_EPOCH, REPORT, SEAT and
 * membership commands are atomic and seen by everyone who looks.  What is modelled
 * is what Raft does not order: WAL that is written, flushed, sent and received,
 * acks under way, promises, crashes, data that is replaced.
 *
 * A log entry is the epoch of its writer; entry i of epoch e is the same
 * bytes everywhere, because an epoch has one writer in one boot (I1).  The first
 * entry that an epoch writes is its epoch record.
 *
 * What a run has besides the protocol of three voters:
 *   LEASES    strict reads: a voter's grant ends after the holder's idea of it, and
 *             keeps the voter from reporting
 *   JOINING   one voter grows to three, one numbered change each
 *   GROWING   three voters grow to five
 *   RESYNC    a rewind or a clone: a copy is staged, then replaces a node's data
 *   LOST=n    node n may lose its disk; it is removed, joins as another
 *             incarnation, and votes again, one numbered change each
 *
 * Mutations, each of which must give a counterexample, but for NO_GATE, where none is
 * known within bounds that can be searched:
 *   NO_MATCH          a receiver streams and acks without log matching (I3)
 *   VOLATILE_PROMISE  a crash forgets the promise (I2)
 *   LSN_ONLY          reports are compared by LSN alone (I6)
 *   SEND_UNFLUSHED    WAL is sent before the primary flushed it (I4)
 *   OLD_ACKS          acks of another epoch count (I5)
 *   NO_GATE           a new primary opens without its record on a quorum (I8)
 *   NO_CLOSE          a membership change needs no closing (I13)
 *   LATE_NUMBER       a primary counts by a number of after its epoch (I13)
 *   SHORT_LEASES      a voter counts a lease shorter than the holder (I9)
 *   KEPT_ACKS         acks go on between the copy of the data and its use (I11)
 *   EARLY_REPORT      who has begun to replace its data reports before it is done (I11)
 *   OLD_PLAN          a copy of an older epoch replaces newer data (I11)
 *   OLD_IDENTITY      who lost its disk goes on as the same voter (I11, I16)
 */

#ifdef GROWING
#define N 5
#else
#define N 3
#endif
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
byte	applied[N];				/* the number that a primary counts by */
byte	last_number[E + 1];		/* of each epoch, when the next one was opened */

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

/* One copy at a time: who takes it, of which epoch's log, how long. */
#ifdef RESYNC
mtype = { nothing, staged, replacing };
mtype	copy = nothing;
byte	copy_node, copy_epoch, copy_len;
byte	copy_log[L];
#define REPLACING(n)	(copy == replacing && copy_node == (n))
#if defined(KEPT_ACKS)
#define PLAN_HOLDS		(promised[n] == copy_epoch)
#elif defined(OLD_PLAN)
#define PLAN_HOLDS		(conn[n] == 0)
#else
#define PLAN_HOLDS		(promised[n] == copy_epoch && conn[n] == 0)
#endif
#else
#define REPLACING(n)	false
#endif

/* A disk that is lost: away until it joins again, then another incarnation. */
#ifdef LOST
bool	away = false;
bool	reborn = false;
bool	ack_reborn = false;		/* the ack under way is of that one */
bool	rep_reborn = false;		/* and its report */
#define AWAY(n)		((n) == LOST && away)
#else
#define AWAY(n)		false
#endif

/* Who votes under a number, of how many a majority is, whose reports count. */
#if defined(JOINING)
#define LAST_NUMBER		2
#define VOTER(n, num)	((n) <= (num))
#define NEED(num)		(((num) + 1) / 2 + 1)
#define COUNTS(n, num)	VOTER(n, num)
#elif defined(GROWING)
#define LAST_NUMBER		2
#define VOTER(n, num)	((n) <= (num) + 2)
#define NEED(num)		((num) == 0 -> 2 : 3)
#define COUNTS(n, num)	VOTER(n, num)
#elif defined(LOST)
#define LAST_NUMBER		2
#define VOTER(n, num)	((n) != LOST || (num) != 1)
#define NEED(num)		2
#ifdef OLD_IDENTITY
#define COUNTS(n, num)	VOTER(n, num)
#else
#define COUNTS(n, num)	((n) != LOST || ((num) == 0 && !rep_reborn) || ((num) == 2 && rep_reborn))
#endif
#else
#define LAST_NUMBER		0
#define VOTER(n, num)	true
#define NEED(num)		2
#define COUNTS(n, num)	true
#endif

/* Which flushed lengths count for the primary p at length len. */
#define HAS(n, p, len)		(((n) == (p) -> fl[n] : got[(p) * N + (n)]) >= (len))
#define VOTES(n, p, len, num)	((VOTER(n, num) && HAS(n, p, len)) -> 1 : 0)
#define REPORT(n, num)		((COUNTS(n, num) && reported[n]) -> 1 : 0)
#if N == 5
#define QUORUM(p, len, num)	(VOTES(0, p, len, num) + VOTES(1, p, len, num) + VOTES(2, p, len, num) + \
	VOTES(3, p, len, num) + VOTES(4, p, len, num) >= NEED(num))
#define REPORTS(num)	(REPORT(0, num) + REPORT(1, num) + REPORT(2, num) + REPORT(3, num) + REPORT(4, num))
#else
#define QUORUM(p, len, num)	(VOTES(0, p, len, num) + VOTES(1, p, len, num) + VOTES(2, p, len, num) >= NEED(num))
#define REPORTS(num)	(REPORT(0, num) + REPORT(1, num) + REPORT(2, num))
#endif
#ifdef NO_CLOSE
#define ENOUGH_REPORTS	(REPORTS(number) >= NEED(number))
#define MAY_CHANGE		true
#else
#define ENOUGH_REPORTS	(REPORTS(number) >= NEED(number) && \
						 (closed || REPORTS(number - 1) >= NEED(number - 1)))
#define MAY_CHANGE		closed
#endif
#ifdef LATE_NUMBER
#define NUMBERS_OF(e)	number
#else
#define NUMBERS_OF(e)	((e) == epoch -> number : last_number[e])
#endif
#define QUORUM_NOW(p, len)	QUORUM(p, len, applied[p])

#ifdef LSN_ONLY
#define BEATS(a, b)	(rep_len[a] > rep_len[b])
#else
#define BEATS(a, b)	(rep_epoch[a] > rep_epoch[b] || \
					 (rep_epoch[a] == rep_epoch[b] && rep_len[a] > rep_len[b]))
#endif
#define NOT_BEATEN(x, o)	(!reported[o] || !BEATS(o, x))
#if N == 5
#define IS_MAXIMUM(n)	(NOT_BEATEN(n, (n + 1) % N) && NOT_BEATEN(n, (n + 2) % N) && \
						 NOT_BEATEN(n, (n + 3) % N) && NOT_BEATEN(n, (n + 4) % N))
#else
#define IS_MAXIMUM(n)	(NOT_BEATEN(n, (n + 1) % N) && NOT_BEATEN(n, (n + 2) % N))
#endif

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

/* Entries of a log from there on are gone. */
inline cut(n, from)
{
	k = from;
	do :: k < L -> LOG(n, k) = 0; k++ :: else -> break od;
	k = 0;
	wr[n] = from;
	if :: fl[n] > from -> fl[n] = from :: else -> skip fi
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

/* A client was told of it, or saw it: it stays. */
inline promise_entries(p, upto)
{
	k = 0;
	do
	:: k < upto ->
		assert(committed[k] == 0 || committed[k] == LOG(p, k));
		if
		:: committed[k] == 0 || acked_in[k] > seat[p] -> acked_in[k] = seat[p]
		:: else -> skip
		fi;
		committed[k] = LOG(p, k); k++
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
	seat[n] = 0; clen[n] = 0; gate[n] = false; applied[n] = 0;
	k = 0;
	do :: k < N -> got[n * N + k] = 0; k++ :: else -> break od;
	k = 0
}

/* A restart of the holder ends its epoch. */
inline end_boot(n)
{
	conn[n] = 0;
	if
	:: holder == n -> boot_ok = false
	:: else -> skip
	fi;
	if
	:: seat[n] != 0 -> leave(n)
	:: else -> skip
	fi
}

inline connect(n, p)
{
#ifndef NO_MATCH
	common_prefix(n, p);
	cut(n, i);
	i = 0;
#endif
	conn[n] = promised[n]
}

#ifdef OLD_ACKS
#define ACK_COUNTS(n, p)	true
#elif defined(LOST)
#define ACK_COUNTS(n, p)	(ack_epoch[p] == seat[n] && ((p) != LOST || ack_reborn == (applied[n] > 0)))
#else
#define ACK_COUNTS(n, p)	(ack_epoch[p] == seat[n])
#endif

inline receive_ack(n, p)
{
	if
	:: ACK_COUNTS(n, p) && ack_len[p] > got[n * N + (p)] -> got[n * N + (p)] = ack_len[p]
	:: else -> skip
	fi;
	ack_epoch[p] = 0; ack_len[p] = 0
}

#ifdef RESYNC
/* Its acks are forgotten, it follows nobody, and the copy goes up to what is flushed then. */
inline stage(n, p)
{
#ifndef KEPT_ACKS
	got[(p) * N + n] = 0; ack_epoch[n] = 0; ack_len[n] = 0; conn[n] = 0;
#endif
	copy = staged; copy_node = n; copy_epoch = promised[n]; copy_len = fl[p];
	do :: k < copy_len -> copy_log[k] = LOG(p, k); k++ :: else -> break od;
	k = 0
}
#endif

/* What node n may do with the node d places further, for each of the others. */
#if N == 5
#define WITH_OTHERS(step)	step(1) step(2) step(3) step(4)
#else
#define WITH_OTHERS(step)	step(1) step(2)
#endif
#define OTHER(d)	((n + d) % N)

/* an ack arrives */
#define RECEIVE_ACK(d) \
	:: atomic { seat[n] != 0 && ack_epoch[OTHER(d)] != 0 -> receive_ack(n, OTHER(d)) }
/*
 * Connect: log matching (I3); a tail past the fork goes (I10).  What n has
 * applied of the replicated state may be old: only its promise counts.
 */
#define CONNECT(d) \
	:: atomic { seat[n] == 0 && conn[n] == 0 && OPENED(OTHER(d)) && !REPLACING(n) -> connect(n, OTHER(d)) }
/* receive one entry of flushed WAL (I4); of five nodes no ack is ever under way, to save states */
#ifdef GROWING
#define RECEIVE_WAL(d) \
	:: atomic { conn[n] != 0 && SENDS(OTHER(d)) -> \
		LOG(n, wr[n]) = LOG(OTHER(d), wr[n]); wr[n]++; fl[n] = wr[n] } \
	:: atomic { conn[n] != 0 && promised[n] == conn[n] && seat[OTHER(d)] == conn[n] && got[OTHER(d) * N + n] < fl[n] -> \
		got[OTHER(d) * N + n] = fl[n] }
#else
#define RECEIVE_WAL(d) \
	:: atomic { conn[n] != 0 && SENDS(OTHER(d)) -> LOG(n, wr[n]) = LOG(OTHER(d), wr[n]); wr[n]++ }
#endif
/* a grant, under the promise */
#define GRANT_LEASE(d) \
	:: atomic { seat[OTHER(d)] != 0 && promised[n] == seat[OTHER(d)] && !lease_held[n] && epoch == promised[n] -> \
		lease_held[n] = true; lease_given[n] = true; lease_to[n] = promised[n] }
/* a copy of the primary's log is staged; its acks are forgotten first (I11) */
#define STAGE(d) \
	:: atomic { copy == nothing && seat[n] == 0 && OPENED(OTHER(d)) -> stage(n, OTHER(d)) }

proctype node(byte n)
{
end:
	do
	/* ---- as primary ---- */
	:: atomic { seat[n] != 0 && gate[n] && wr[n] < L ->
		LOG(n, wr[n]) = seat[n]; wr[n]++ }
	:: atomic { wr[n] > fl[n] -> fl[n] = wr[n] }
#if LAST_NUMBER > 0
	/* Raft's order: of what follows the epoch that deposes it a primary counts by nothing */
	:: atomic { seat[n] != 0 && applied[n] < NUMBERS_OF(seat[n]) -> applied[n]++;
#ifdef LOST
		/* an ack names its incarnation: the old one's count no more */
		got[n * N + LOST] = 0
#endif
		}
#endif
#ifndef GROWING
	WITH_OTHERS(RECEIVE_ACK)
#endif
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
		:: gate[n] -> promise_entries(n, clen[n])
		:: else -> skip
		fi }

	/* ---- as standby ---- */
	WITH_OTHERS(CONNECT)
	WITH_OTHERS(RECEIVE_WAL)
#ifndef GROWING
	/* ack-send: under the same check as the promise (I2) */
	:: atomic { conn[n] != 0 && promised[n] == conn[n] && fl[n] > 0 &&
		!(ack_epoch[n] == conn[n] && ack_len[n] == fl[n]) ->
		ack_epoch[n] = conn[n]; ack_len[n] = fl[n];
#ifdef LOST
		if :: n == LOST -> ack_reborn = reborn :: else -> skip fi
#endif
		}
#endif

	/* ---- failover ---- */
	:: atomic { epoch < E && n == 0 ->
		last_number[epoch] = number;
		epoch++; is_open = true; boot_ok = false;
		k = 0;
		do :: k < N -> reported[k] = false; rep_epoch[k] = 0; rep_len[k] = 0; k++ :: else -> break od;
		k = 0 }
	/* fence and promise */
	:: atomic { promised[n] < epoch && !AWAY(n) ->
		if
		:: seat[n] != 0 -> leave(n)
		:: else -> skip
		fi;
		conn[n] = 0; promised[n] = epoch }
	/* report: a scan of fsynced WAL (I6), no earlier than the lease allows (I9) */
	:: atomic { is_open && promised[n] == epoch && !reported[n] && !LEASE_BLOCKS(n) && !AWAY(n) &&
#ifndef EARLY_REPORT
		!REPLACING(n) &&		/* I11 */
#endif
		(VOTER(n, number) || (!closed && VOTER(n, number - 1))) ->
		fl[n] = wr[n]; reported[n] = true; rep_len[n] = fl[n];
#ifdef LOST
		if :: n == LOST -> rep_reborn = reborn :: else -> skip fi;
#endif
		rep_epoch[n] = (fl[n] > 0 -> LOG(n, fl[n] - 1) : 0) }
	/* SEAT for me */
	:: atomic { is_open && reported[n] && COUNTS(n, number) && ENOUGH_REPORTS && IS_MAXIMUM(n) &&
		rep_epoch[n] != 0 && !AWAY(n) ->
		is_open = false; holder = n; fork = rep_len[n]; boot_ok = true }
	/* promote: the boot and the end that the seat names */
	:: atomic { !is_open && holder == n && boot_ok && promised[n] == epoch && seat[n] == 0 &&
		epoch > 1 && wr[n] == fork && fl[n] == fork && wr[n] < L && !REPLACING(n) ->
		boot_ok = false;		/* once */
		seat[n] = epoch; LOG(n, wr[n]) = epoch; wr[n]++;
		applied[n] = number;
#ifdef NO_GATE
		check_committed(n); gate[n] = true
#endif
		}

	/* ---- crash: unflushed bytes may go ---- */
	:: atomic { crashes < CRASHES && !AWAY(n) ->
		crashes++;
		k = fl[n];
		do :: k < wr[n] -> LOG(n, k) = 0; k++ :: else -> break od;
		k = 0;
		wr[n] = fl[n];
		reported[n] = reported[n] && holder != n;
#ifdef VOLATILE_PROMISE
		promised[n] = (fl[n] > 0 -> LOG(n, fl[n] - 1) : 0);
#endif
		end_boot(n) }

#ifdef LEASES
	/* ---- leases: granted under the promise; the holder forgets first (I9) ---- */
	WITH_OTHERS(GRANT_LEASE)
	:: atomic { lease_held[n] -> lease_held[n] = false }
#ifdef SHORT_LEASES
	:: atomic { lease_given[n] -> lease_given[n] = false }
#else
	:: atomic { lease_given[n] && !lease_held[n] -> lease_given[n] = false }
#endif
	/*
	 * A strict read (I14): itself and one more are a majority.  It shows what was there
	 * before this primary, and what its quorum has; what it shows stays.
	 */
	:: atomic { seat[n] != 0 && gate[n] &&
		((lease_held[(n + 1) % N] && lease_to[(n + 1) % N] == seat[n]) ||
		 (lease_held[(n + 2) % N] && lease_to[(n + 2) % N] == seat[n])) ->
		k = 0;
		do
		:: k < L ->
			assert(committed[k] == 0 || (k < wr[n] && LOG(n, k) == committed[k])); k++
		:: else -> break
		od;
		k = 0;
		i = clen[n];
		do :: i < wr[n] && LOG(n, i) != seat[n] -> i++ :: else -> break od;
		promise_entries(n, i);
		i = 0 }
#endif

#ifdef RESYNC
	/* ---- the data of a node is replaced: by a rewind, or a clone ---- */
	WITH_OTHERS(STAGE)
	/* the first destructive write: only under the epoch of the copy, nothing followed */
	:: atomic { copy == staged && copy_node == n && seat[n] == 0 && PLAN_HOLDS ->
		conn[n] = 0;
		cut(n, 0);
		copy = replacing }
	/* it needs no peer; the minimum recovery point is the copy's end */
	:: atomic { copy == replacing && copy_node == n ->
		do :: k < copy_len -> LOG(n, k) = copy_log[k]; copy_log[k] = 0; k++ :: else -> break od;
		k = 0;
		wr[n] = copy_len; fl[n] = copy_len;
		copy = nothing; copy_node = 0; copy_epoch = 0; copy_len = 0 }
	/* it was for nothing */
	:: atomic { copy == staged && copy_node == n && promised[n] != copy_epoch ->
		do :: k < copy_len -> copy_log[k] = 0; k++ :: else -> break od;
		k = 0;
		copy = nothing; copy_node = 0; copy_epoch = 0; copy_len = 0 }
#endif

#if defined(JOINING) || defined(GROWING)
	/* ---- membership: one voter at a time (I13) ---- */
	:: atomic { n == 0 && number < LAST_NUMBER && !is_open && MAY_CHANGE ->
		number++; closed = false }
#endif
#ifdef LOST
	/* ---- its disk is lost, with its promise ---- */
	:: atomic { n == LOST && number == 0 && !away ->
		cut(n, 0);
		fl[n] = 0; promised[n] = 0;
		end_boot(n);
#ifdef OLD_IDENTITY
		skip }
#else
		away = true }
	/* it is removed, joins as another incarnation, and votes again */
	:: atomic { n == LOST && away && number == 0 && !is_open && MAY_CHANGE && holder != n ->
		number = 1; closed = false }
	:: atomic { n == LOST && away && number == 1 -> away = false; reborn = true }
	:: atomic { n == LOST && reborn && number == 1 && !is_open && MAY_CHANGE -> number = 2; closed = false }
#endif
#endif
#if LAST_NUMBER > 0
	:: atomic { !closed && seat[n] != 0 && seat[n] == epoch && !is_open && gate[n] && applied[n] == number &&
		QUORUM(n, clen[n], number) -> closed = true }
#endif
	od;
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
		do :: k < N -> run node(k); k++ :: else -> break od;
		k = 0
	}
}
