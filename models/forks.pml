/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Deadlocks among readers and writers. A writer that drains a lock waits for every reader of it, so that the way along
 * which a thread looks for itself forks. None is missed, and none is found that was not there.
 *
 * Each of THREADS takes two different of LOCKS and gives both back. A thread that has to wait says for which lock, with a
 * number, and searches (a set of those seen, a list of those to do, and for each the one that it was reached from). What
 * comes back to it is believed once the same way was looked at twice more under the detector, each link as it was.
 *
 *     FIRST, SECOND       the locks of the threads, two bits for each, thread 0 lowest; without them any, in any order
 *     SHARED_FIRST, SHARED_SECOND     a bit for each thread: that lock is shared; without them either
 *     DEATHS, TIMEOUTS    so many in all, at any step; a timeout ends a wait
 *     SEARCHES            so many further searches of a thread while it waits
 *     AGAIN               and one more whenever what was found was not confirmed: the next slice's
 */
#ifndef THREADS
#define THREADS 3
#endif
#ifndef LOCKS
#define LOCKS 2
#endif
#ifndef DEATHS
#define DEATHS 0
#endif
#ifndef TIMEOUTS
#define TIMEOUTS 0
#endif
#ifndef SEARCHES
#define SEARCHES 1
#endif

/* The word: its owner, counted from 1; whether that drains; S. A cell for each lock and thread. */
byte owner[LOCKS]; bit drains[LOCKS]; bit shared[LOCKS];
bit cell[LOCKS * THREADS];
/* The records of the threads: the lock that each waits for, counted from 1, and the number of that wish. */
byte wish[THREADS]; byte number[THREADS];
byte detector;
bit dead[THREADS];
byte deaths, timeouts;

/* The truth, whatever words and cells say: who reads what. */
bit reads[LOCKS * THREADS];

#define CELL(lock, thread) cell[(lock) * THREADS + (thread)]
#define READS(lock, thread) reads[(lock) * THREADS + (thread)]
#define BITS_OF(number, thread) (((number) >> (2 * (thread))) & 3)

#if THREADS > 3
#define FORGET_WAY from[0] = 0; from[1] = 0; from[2] = 0; from[3] = 0
#define FORGET_LINKS link[0] = 0; link[1] = 0; link[2] = 0; link[3] = 0
#define ANY_READER_BUT_ME(l) (OTHER(l, 1) || OTHER(l, 2) || OTHER(l, 3))
#else
#define FORGET_WAY from[0] = 0; from[1] = 0; from[2] = 0
#define FORGET_LINKS link[0] = 0; link[1] = 0; link[2] = 0
#define ANY_READER_BUT_ME(l) (OTHER(l, 1) || OTHER(l, 2))
#endif
#define OTHER(l, n) (CELL(l, (me + n) % THREADS) && !dead[(me + n) % THREADS])

#define FORGET x = 0; o = 0; w = 0; t = 0; first_sum = 0; second_sum = 0; found = 0; seen = 0; to_do = 0; last = 0; length = 0; \
	i = 0; ok = 0; is_true = 0; reached = 0; gt = 0; rounds = 0; FORGET_WAY; FORGET_LINKS
#define DIE deaths++; dead[me] = 1; x = 0; do :: x < LOCKS -> READS(x, me) = 0; x++ :: else -> break od; FORGET
#define MAY_DIE if :: true :: deaths < DEATHS -> d_step { DIE }; goto gone fi

/* Whether there is a way from the wish of `me` back to it, at this instant. */
inline truth() {
	d_step {
		reached = (1 << me); rounds = 0; is_true = 0;
		do
		:: rounds < THREADS ->
			rounds++; gt = 0;
			do
			:: gt < THREADS ->
				if
				:: (reached >> gt) & 1 && wish[gt] && !dead[gt] ->
					o = owner[wish[gt] - 1];
					if
					:: o == gt + 1 && drains[wish[gt] - 1] ->
						x = 0;
						do
						:: x < THREADS ->
							if
							:: x != gt && READS(wish[gt] - 1, x) && !dead[x] ->
								reached = reached | (1 << x);
								if :: x == me -> is_true = 1 :: else fi
							:: else
							fi;
							x++
						:: else -> break
						od
					:: o != 0 && o != gt + 1 && !dead[o - 1] ->
						reached = reached | (1 << (o - 1));
						if :: o - 1 == me -> is_true = 1 :: else fi
					:: else
					fi
				:: else
				fi;
				gt++
			:: else -> break
			od
		:: else -> break
		od;
		reached = 0; gt = 0; rounds = 0; o = 0; x = 0
	}
}

#define FOLLOW(y) \
	if \
	:: y == me && !found -> found = 1; last = t \
	:: y != me && !((seen >> y) & 1) -> seen = seen | (1 << y); to_do = to_do | (1 << y); from[y] = t \
	:: else \
	fi

/* The search: each read of a word, a cell or a record is a step. */
inline search() {
	d_step { found = 0; seen = 0; to_do = (1 << me); t = 0 };
	do
	:: found || to_do == 0 -> break
	:: else ->
		d_step {
			t = 0;
			do :: !((to_do >> t) & 1) -> t++ :: else -> break od;
			to_do = to_do & ~(1 << t); w = wish[t]
		};
		if
		:: w == 0 -> skip
		:: else ->
			o = owner[w - 1];
			if
			:: o == 0 -> skip
			:: o == t + 1 ->
				x = 0;
				do
				:: x < THREADS ->
					if
					:: x != t && CELL(w - 1, x) && !dead[x] ->
#ifdef BAD_LOOKERS_ARE_HOLDERS /* who wishes for that same lock only looks whether it may get in */
						d_step { FOLLOW(x) }
#else
						if :: wish[x] != w -> d_step { FOLLOW(x) } :: else fi
#endif
#ifdef BAD_FIRST_READER_ONLY /* one way is followed, and not the others */
						; break
#endif
					:: else
					fi;
					x++
				:: else -> break
				od
			:: else -> if :: !dead[o - 1] -> d_step { x = o - 1; FOLLOW(x) } :: else fi
			fi
		fi
	od;
	skip;
	d_step { x = 0; o = 0; w = 0; t = 0; to_do = 0; seen = 0 }
}

/* The links of the way that was found, the last first. */
inline way() {
	d_step {
		length = 0; x = last;
		do :: true -> link[length] = x; length++; if :: x == me -> break :: else -> x = from[x] fi od;
		x = 0; FORGET_WAY
	}
}

/* Looks at each link again: it still is one; `sum` is of the wishes with their numbers. */
inline look(sum) {
	d_step { i = 0; sum = 0; found = 1; t = me };
	do
	:: i < length && found ->
		x = link[i];
		d_step { w = wish[x]; sum = sum * 16 + number[x] * 4 + w };
		if
		:: w == 0 || dead[x] -> found = 0
		:: else ->
			o = owner[w - 1];
			if
			:: o == x + 1 ->
#ifndef BAD_LOOKERS_ARE_HOLDERS
				if :: wish[t] == w && t != x -> found = 0 :: else fi;
#endif
				found = (found && CELL(w - 1, t) && !dead[t])
			:: else -> found = (o == t + 1 && !dead[t])
			fi
		fi;
		t = x; i++
	:: else -> break
	od;
	skip;
	d_step { x = 0; o = 0; w = 0; t = 0; i = 0 }
}

inline try_exclusive() {
	d_step {
		ok = 0;
		if :: owner[l] == 0 -> owner[l] = me + 1; drains[l] = shared[l]; shared[l] = 0; ok = 1 :: else fi
	}
}

inline second_look() {
	d_step { ok = 0; if :: owner[l] == 0 -> shared[l] = 1; READS(l, me) = 1; ok = 1 :: else fi }
}

inline give_back(lock, is_shared) {
	if :: is_shared -> d_step { READS(lock, me) = 0; CELL(lock, me) = 0 } :: else -> owner[lock] = 0 fi
}

proctype Thread(byte me) {
	byte a, b, l, x, o, w, t, seen, to_do, last, length, i, from[THREADS], link[THREADS], reached, gt, rounds;
	int first_sum, second_sum;
	bit found, ok, is_true, is_shared, a_is_shared, b_is_shared;
	byte held, searches, attempts;

#ifdef FIRST
	d_step { a = BITS_OF(FIRST, me); b = BITS_OF(SECOND, me) };
#else
	if
	:: a = 0; b = 1
	:: a = 1; b = 0
#if LOCKS > 2
	:: a = 0; b = 2
	:: a = 1; b = 2
	:: a = 2; b = 0
	:: a = 2; b = 1
#endif
	fi;
#endif
#ifdef SHARED_FIRST
	d_step { a_is_shared = (SHARED_FIRST >> me) & 1; b_is_shared = (SHARED_SECOND >> me) & 1 };
#else
	if :: a_is_shared = 0 :: a_is_shared = 1 fi;
	if :: b_is_shared = 0 :: b_is_shared = 1 fi;
#endif
	l = a; is_shared = a_is_shared;
acquire:
	skip;
	MAY_DIE;
	if
	:: is_shared ->
		CELL(l, me) = 1;
		MAY_DIE;
		second_look();
		if :: ok -> goto have :: else -> MAY_DIE; CELL(l, me) = 0 fi
	:: else ->
		try_exclusive();
		if :: ok && !drains[l] -> goto have :: else fi
	fi;
#ifdef BAD_SEARCH_BEFORE_WISH /* who says late for what it waits is not seen by those who look */
	search();
	found = 0; last = 0; FORGET_WAY;
#endif
	d_step { wish[me] = l + 1; number[me] = (number[me] + 1) % 4 };
#ifdef BAD_SEARCH_BEFORE_WISH
	goto wait;
#endif
look_around:
	skip;
	search();
	if
	:: found ->
		way();
#ifndef NO_CONFIRMATION /* what the search found is believed */
		MAY_DIE;
		atomic { detector == 0 || dead[detector - 1] -> detector = me + 1 };
		look(first_sum);
		if :: found -> truth(); look(second_sum); found = (found && first_sum == second_sum) :: else fi;
		d_step { first_sum = 0; second_sum = 0; length = 0; last = 0; FORGET_LINKS };
		if :: found -> goto deadlock :: else -> is_true = 0; detector = 0 fi
#ifdef AGAIN
		; goto look_around
#endif
#else
		truth();
		goto deadlock
#endif
	:: else -> d_step { last = 0; FORGET_WAY }
	fi;
wait:
	skip;
	MAY_DIE;
	if
	:: !is_shared && owner[l] == me + 1 && drains[l] && !ANY_READER_BUT_ME(l) -> MAY_DIE; drains[l] = 0; MAY_DIE; goto had_to_wait
	:: atomic { !is_shared && owner[l] == 0 -> owner[l] = me + 1; drains[l] = shared[l]; shared[l] = 0 };
		if :: drains[l] -> goto look_around :: else -> goto had_to_wait fi
	:: atomic { !is_shared && owner[l] != 0 && dead[owner[l] - 1] -> owner[l] = me + 1; drains[l] = 1 };
		goto look_around
	:: is_shared && owner[l] != 0 && dead[owner[l] - 1] ->
		d_step { if :: owner[l] != 0 && dead[owner[l] - 1] -> owner[l] = 0; drains[l] = 0; shared[l] = 1 :: else fi };
		goto look_around
	:: is_shared && (owner[l] == 0 || attempts < 1) ->
		/* It looks whether it may get in, also while it may not. */
		if :: owner[l] != 0 -> attempts++ :: else fi;
		CELL(l, me) = 1;
		MAY_DIE;
		second_look();
		if :: ok -> MAY_DIE; goto had_to_wait :: else -> CELL(l, me) = 0; goto look_around fi
	:: timeouts < TIMEOUTS -> timeouts++; goto timeout_over
	:: searches < SEARCHES -> searches++; goto look_around
	:: deaths < DEATHS -> d_step { DIE }; goto gone
	fi;
had_to_wait:
	/* Withdrawn after the swap. */
	wish[me] = 0;
have:
	held++;
	if :: held == 1 -> l = b; is_shared = b_is_shared; goto acquire :: else fi;
	MAY_DIE;
	give_back(b, b_is_shared);
give_back_first:
	skip;
	give_back(a, a_is_shared);
	goto gone;
timeout_over:
	wish[me] = 0;
	d_step { if :: owner[l] == me + 1 && drains[l] -> owner[l] = 0; drains[l] = 0; shared[l] = 1 :: else fi };
	if :: held == 1 -> goto give_back_first :: else -> goto gone fi;
deadlock:
	skip;
	/* It was there at an instant inside the call. */
	d_step { assert(is_true); is_true = 0 };
	MAY_DIE;
	wish[me] = 0;
	detector = 0;
	d_step { if :: owner[l] == me + 1 && drains[l] -> owner[l] = 0; drains[l] = 0; shared[l] = 1 :: else fi };
	if :: held == 1 -> goto give_back_first :: else fi;
gone:
	skip
}

init {
	atomic {
		byte k = 0;
		do :: k < THREADS -> run Thread(k); k++ :: else -> break od
	}
}
