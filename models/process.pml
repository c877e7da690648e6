/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Locks that a process owns: any of its threads gives back what another took.
 *
 * Threads 1 and 2 are of process P, thread 3 is of another process and owns for itself. Claims, looks and drains stand in
 * the thread's name, so that no two threads take each other's step for their own; what is held is then swapped to the
 * process's name. Several holds of P stand in several cells that look the same, and an unlock gives any of them back.
 * Steps are as in shared.pml.
 *
 *     CALLS               of each thread; a thread of P locks either way, gives back what P holds, or what it does not
 *     OTHER_CALLS         of thread 3, which locks either way and gives back; it waits for cells without slices
 *     CELLS
 *     DEATHS              1: process P is killed; each of its threads takes its last step anywhere
 *     THREAD_DEATHS       so many threads of P vanish at any step of a lock call, as of a raw exit
 */
#ifndef CALLS
#define CALLS 2
#endif
#ifndef OTHER_CALLS
#define OTHER_CALLS 2
#endif
#ifndef CELLS
#define CELLS 2
#endif
#ifndef DEATHS
#define DEATHS 0
#endif
#ifndef THREAD_DEATHS
#define THREAD_DEATHS 0
#endif
#define P 4
#define OTHER 3
#define MOST 5

byte owner; bit S, R;
byte cell[CELLS]; bit cell_w[CELLS];
bit dead[MOST];
byte thread_deaths;
/* Thread n sleeps on that cell, counted from 1. */
byte on_cell[MOST];
/* P is being killed: a thread that has taken its last step waits for the other's. */
bit killing; byte at_rest;
/* In P's own memory: what it holds shared, and no unlock has begun on. */
byte counted;

/* The truth: who is in, a thread in its own name or P; and unlocks of P that have not found their cell yet. */
byte writers_in, p_reads, unlocking;
bit reads[MOST];
#define READERS_IN (reads[1] + reads[2] + reads[3] + p_reads)

#define IS_DEAD(name) (dead[name] || (dead[P] && (name) != OTHER))
#define NAMES_P(k) (cell[k] == P)
#if CELLS == 2
#define CELLS_OF_P (NAMES_P(0) + NAMES_P(1))
#define NO_CELL_LIVES ((cell[0] == 0 || IS_DEAD(cell[0])) && (cell[1] == 0 || IS_DEAD(cell[1])))
#else
#define CELLS_OF_P (NAMES_P(0) + NAMES_P(1) + NAMES_P(2))
#define NO_CELL_LIVES ((cell[0] == 0 || IS_DEAD(cell[0])) && (cell[1] == 0 || IS_DEAD(cell[1])) \
	&& (cell[2] == 0 || IS_DEAD(cell[2])))
#endif
#define CELLS_ARE_SEEN assert(READERS_IN == 0 || (owner == 0 && S) || (owner != 0 && R))
/* Every hold that is in P's name has a cell, and so has every unlock of one. */
#define EACH_HOLD_HAS_A_CELL assert(dead[P] || CELLS_OF_P >= p_reads + unlocking)

#ifdef BAD_CLAIM_AS_PROCESS
#define CLAIMS_AS(me) (me == OTHER -> OTHER : P)
#else
#define CLAIMS_AS(me) (me)
#endif
#ifdef BAD_DRAIN_AS_PROCESS
#define DRAINS_AS(me) (me == OTHER -> OTHER : P)
#else
#define DRAINS_AS(me) (me)
#endif
#define HOLDS_AS(me) (me == OTHER -> OTHER : P)

#define FORGET mine = CELLS; so = 0; sS = 0; sR = 0; c = 0; k = 0; had_w = 0; ok = 0; start = 0; n = 0
#define MAY_STOP if :: true :: DEATHS > 0 && me != OTHER -> killing = 1; goto gone fi
#define MAY_VANISH if :: true :: DEATHS > 0 && me != OTHER -> killing = 1; goto gone \
	:: d_step { thread_deaths < THREAD_DEATHS && me != OTHER -> thread_deaths++; dead[me] = 1; reads[me] = 0 }; goto gone fi

inline wake_on_cell(j) {
	d_step {
		if :: on_cell[1] == (j) + 1 -> on_cell[1] = 0 :: else fi;
		if :: on_cell[2] == (j) + 1 -> on_cell[2] = 0 :: else fi;
		if :: on_cell[3] == (j) + 1 -> on_cell[3] = 0 :: else fi
	}
}

inline claim() {
	atomic {
		ok = 1;
		if
		:: cell[0] == 0 -> mine = 0
		:: cell[1] == 0 -> mine = 1
#if CELLS > 2
		:: cell[2] == 0 -> mine = 2
#endif
		:: else -> ok = 0
		fi;
		if :: ok -> cell[mine] = CLAIMS_AS(me); cell_w[mine] = 0 :: else fi
	}
}

proctype Thread(byte me; byte most) {
	byte calls, mine, so, c, k, start, n;
	bit sS, sR, had_w, ok;

next_call:
	skip;
	d_step { FORGET };
	MAY_STOP;
	if :: calls == most -> goto gone :: else -> calls++ fi;
	if
	:: goto shared
	:: goto exclusive
	:: d_step { me != OTHER && counted > 0 -> counted--; p_reads--; unlocking++ }; goto unlock_any
	:: me != OTHER && CELLS_OF_P == 0 && p_reads + unlocking == 0 -> goto unlock_nothing
	fi;

shared:
	skip;
	MAY_VANISH;
	claim();
	if :: !ok -> goto next_call :: else fi;
look:
	skip;
	MAY_VANISH;
	d_step {
		so = owner; sS = S; sR = R; ok = 0;
		if :: so == 0 && sS -> ok = 1; reads[me] = 1; CELLS_ARE_SEEN :: else fi
	};
	if
	:: ok
	:: !ok && so == 0 ->
		d_step { ok = 0; if :: owner == 0 && !S -> S = 1; R = 0; ok = 1; reads[me] = 1; CELLS_ARE_SEEN :: else fi };
		if :: !ok -> goto look :: else fi
	:: else ->
		/* Back, without having been in. */
		MAY_VANISH;
		d_step { ok = 0; if :: cell[mine] == CLAIMS_AS(me) -> ok = 1; had_w = cell_w[mine]; cell[mine] = 0; cell_w[mine] = 0 :: else fi };
		if :: had_w -> wake_on_cell(mine) :: else fi;
		goto next_call
	fi;
	if
	:: me == OTHER ->
		d_step { reads[me] = 0; had_w = cell_w[mine]; assert(cell[mine] == me); cell[mine] = 0; cell_w[mine] = 0 };
		if :: had_w -> wake_on_cell(mine) :: else fi;
		goto next_call
	:: else
	fi;
#ifndef BAD_CLAIM_AS_PROCESS /* an unlock of what P does not hold takes a claim away */
to_process:
	skip;
	/* A thread that vanishes here had not got the lock, as far as its process knows. */
	MAY_VANISH;
	had_w = cell_w[mine];
	MAY_VANISH;
	d_step {
		ok = 0;
		if
#ifdef BAD_SWAP_LOSES_W /* a writer sleeps on for a wake-up that nobody owes it */
		:: true -> cell_w[mine] = 0;
#else
		:: cell_w[mine] == had_w ->
#endif
			assert(cell[mine] == me); cell[mine] = P; ok = 1; p_reads++; reads[me] = 0
		:: else
		fi
	};
	if :: !ok -> goto to_process :: else fi;
#else
	d_step { p_reads++; reads[me] = 0 };
#endif
	d_step { counted++; EACH_HOLD_HAS_A_CELL };
	goto next_call;

	/* The cell that the hold was taken in is not known, or is not this one's: the search begins at any. */
unlock_any:
	skip;
	if
	:: start = 0
	:: start = 1
#if CELLS > 2
	:: start = 2
#endif
	fi;
search:
	n = 0;
	do
	:: n == CELLS -> break
	:: n < CELLS ->
		k = (start + n) % CELLS;
		MAY_STOP;
		d_step { c = cell[k]; had_w = cell_w[k] };
		if
		:: c == P ->
			MAY_STOP;
			d_step {
				ok = 0;
				if :: cell[k] == c && cell_w[k] == had_w -> cell[k] = 0; cell_w[k] = 0; ok = 1; unlocking--; EACH_HOLD_HAS_A_CELL :: else fi
			};
			if
			:: ok && had_w -> wake_on_cell(k); goto next_call
			:: ok && !had_w -> goto next_call
			:: else /* it has W by now, or another thread gave it back */
			fi
		:: else -> n++
		fi
	od;
#ifdef NO_SEARCH_AGAIN /* the hold went from a cell that was not yet looked at to one that was */
	assert(false);
#endif
	goto search;

	/* P holds nothing, and says that it does: it must find nothing to give back, unless a hold was taken meanwhile. */
unlock_nothing:
	skip;
	if :: k = 0 :: k = 1 fi;
	d_step { assert(cell[k] != P || p_reads + unlocking > 0) };
	goto next_call;

exclusive:
	skip;
	MAY_VANISH;
	d_step { so = owner; sS = S; sR = R };
	if
	:: so == 0 && !sS ->
		d_step { ok = 0; if :: owner == 0 && !S -> owner = HOLDS_AS(me); R = 0; ok = 1 :: else fi };
		if :: ok -> goto holds :: else -> goto next_call fi
	:: so == 0 && sS -> skip
	:: so != 0 && IS_DEAD(so) && sR -> skip
	:: so != 0 && IS_DEAD(so) && !sR ->
		d_step { ok = 0; if :: owner == so && R == sR && S == sS -> owner = HOLDS_AS(me); ok = 1 :: else fi };
		if :: ok -> goto holds :: else -> goto next_call fi
	:: so != 0 && !IS_DEAD(so) && sR && NO_CELL_LIVES ->
		/* A drain that does not go on is ended: it holds nothing. */
		d_step { if :: owner == so && R == sR && S == sS -> owner = 0; R = 0; S = 1; CELLS_ARE_SEEN :: else fi };
		goto next_call
	:: else -> goto next_call
	fi;
	d_step { ok = 0; if :: owner == so && R == sR && S == sS -> owner = DRAINS_AS(me); R = 1; S = 0; ok = 1 :: else fi };
	if :: !ok -> goto next_call :: else fi;
	k = 0;
drain:
	skip;
	if :: k == CELLS -> goto drained :: else fi;
	MAY_VANISH;
	d_step { c = cell[k]; had_w = cell_w[k] };
	if
	:: c == 0 -> k++; goto drain
	:: c != 0 && IS_DEAD(c) ->
		d_step { if :: cell[k] == c && cell_w[k] == had_w -> cell[k] = 0; cell_w[k] = 0 :: else fi };
		goto drain
	:: else ->
		d_step { ok = 0; if :: cell[k] == c && cell_w[k] == had_w -> cell_w[k] = 1; ok = 1 :: else fi };
		if :: !ok -> goto drain :: else fi;
		d_step { ok = 0; if :: cell[k] == c && cell_w[k] -> on_cell[me] = k + 1; ok = 1 :: else fi };
		if :: !ok -> goto drain :: else fi;
		if
		:: on_cell[me] == 0
		:: d_step { IS_DEAD(c) -> on_cell[me] = 0 }
		/* A thread of P gives way to P's own readers: another thread may want to give them back. */
		:: d_step { me != OTHER -> on_cell[me] = 0 }; goto give_up
		fi;
		goto drain
	fi;
drained:
	skip;
	MAY_VANISH;
	d_step { ok = 0; if :: owner == DRAINS_AS(me) && R -> owner = HOLDS_AS(me); R = 0; ok = 1 :: else fi };
	if :: !ok -> goto next_call :: else fi;
holds:
	skip;
	d_step { writers_in++; assert(writers_in == 1 && READERS_IN == 0); assert(owner == HOLDS_AS(me) && !R) };
	MAY_STOP;
	d_step { writers_in--; assert(owner == HOLDS_AS(me)); owner = 0; S = 0; R = 0 };
	goto next_call;
give_up:
	skip;
	MAY_VANISH;
	d_step { if :: owner == DRAINS_AS(me) && R -> owner = 0; R = 0; S = 1; CELLS_ARE_SEEN :: else fi };
	goto next_call;
gone:
	skip;
	d_step { FORGET; if :: me != OTHER -> at_rest++ :: else fi }
}

/* Process P is dead once both of its threads have taken their last step; else it gives back what it still holds. */
proctype End() {
	byte k;
	bit had_w;
	if
	:: d_step {
			killing && at_rest == 2 ->
			dead[P] = 1; reads[1] = 0; reads[2] = 0; p_reads = 0; unlocking = 0; counted = 0;
			if :: owner == P && !R -> writers_in = 0 :: else fi
		}
	:: !killing && at_rest == 2 ->
		do
		:: k == CELLS -> break
		:: else ->
			d_step { had_w = 0; if :: cell[k] == P -> p_reads--; had_w = cell_w[k]; cell[k] = 0; cell_w[k] = 0 :: else fi };
			if :: had_w -> wake_on_cell(k) :: else fi;
			k++
		od
	fi
}

init {
	atomic {
		run Thread(1, CALLS); run Thread(2, CALLS); run Thread(OTHER, OTHER_CALLS); run End()
	}
}
