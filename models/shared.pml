/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * A shared lock: readers and writers at one lock, with its word and its cells.
 *
 * The word is one atomic value, here in parts: `owner` and the flags W, D, R and S.
 *     no owner    S: readers may stand in cells.  R: reserved for those who slept.  D: the last holder died.
 *     an owner    R: it drains, and does not hold yet.  S: somebody starves.  D: a death that it will be told of.
 * A cell is one atomic value, too: the reader, `cell_w` (a writer sleeps on the cell), `cell_s` (its reader starves, and
 * is not in). W in any of them: somebody may sleep there.
 *
 * Whatever stands between two semicolons is one step, beside which the other processes make theirs; d_step and atomic
 * are one step each: a load, or one compare-and-swap, or a futex call. Where one step has a choice, it is atomic: in a
 * d_step, spin would take the first.
 *
 *     PROCESSES, CALLS    so many processes, so many calls of each
 *     WRITERS=n           the first n processes write, the others read; without it each call is of either kind
 *     CELLS               cells of the lock; a reader that finds all taken goes away (-EAGAIN)
 *     SLICES              a sleep may end by itself, and its end is used to judge
 *     DEATHS, TIMEOUTS    so many in all, at any step; a timeout ends a sleep
 *     ENDS                so many threads end in the middle of a call, and sweep what names them; at any step with
 *                         ENDS_ANYWHERE, else where they hold or drain
 *     TAKE_AWAY           a drain without readers may be ended by others: its thread may be a stopped one
 *     DOWNGRADE           a writer may go on as a reader
 * What a switch with NO_ or BAD_ breaks is said where it is used, and in README.md.
 */
#ifndef PROCESSES
#define PROCESSES 3
#endif
#ifndef CALLS
#define CALLS 2
#endif
#ifndef CELLS
#define CELLS 2
#endif
#ifndef DEATHS
#define DEATHS 0
#endif
#ifndef TIMEOUTS
#define TIMEOUTS 0
#endif
#ifndef ENDS
#define ENDS 0
#endif
#define MOST 5 /* one more than the processes of the largest run: they count from 1 */

byte owner; bit W, D, R, S;
byte cell[CELLS]; bit cell_w[CELLS]; bit cell_s[CELLS];

/* The kernel: who sleeps on the word, who was woken, who sleeps on which cell (counted from 1). */
bit asleep[MOST]; bit woke[MOST]; byte on_cell[MOST];
bit is_reader[MOST]; bit dead[MOST];
byte deaths, timeouts, ends;

/* The truth, whatever the words say. */
byte writers_in, readers_in;
bit untold; /* the last writer that held died holding, and no writer was told yet */

/* While a reader is in, a writer that comes sees that there are cells to look at. */
#define CELLS_ARE_SEEN assert(readers_in == 0 || (owner == 0 && S) || (owner != 0 && R))
#define LOOK d_step { so = owner; sW = W; sD = D; sR = R; sS = S }
#define SAME (owner == so && W == sW && D == sD && R == sR && S == sS)
#define MAY_ENTER_FREE (!sR || woken || (saw_reserved && slept))

#if CELLS == 1
#define A_CELL_STARVES (cell_s[0])
#define NO_CELL_LIVES (cell[0] == 0 || cell_s[0] || dead[cell[0]])
#define NAMED_BY_A_CELL (cell[0] == me)
#elif CELLS == 2
#define A_CELL_STARVES (cell_s[0] || cell_s[1])
#define NO_CELL_LIVES ((cell[0] == 0 || cell_s[0] || dead[cell[0]]) && (cell[1] == 0 || cell_s[1] || dead[cell[1]]))
#define NAMED_BY_A_CELL (cell[0] == me || cell[1] == me)
#else
#define A_CELL_STARVES (cell_s[0] || cell_s[1] || cell_s[2])
#define NO_CELL_LIVES ((cell[0] == 0 || cell_s[0] || dead[cell[0]]) && (cell[1] == 0 || cell_s[1] || dead[cell[1]]) \
	&& (cell[2] == 0 || cell_s[2] || dead[cell[2]]))
#define NAMED_BY_A_CELL (cell[0] == me || cell[1] == me || cell[2] == me)
#endif

/* Equal states are to look equal. */
#define FORGET so = 0; sW = 0; sD = 0; sR = 0; sS = 0; slept = 0; woken = 0; starves = 0; saw_reserved = 0; \
	was_reserved = 0; ok = 0; flag = 0; had_s = 0; had_w = 0; by_time = 0; phase = 0; told = 0; mine = CELLS; k = 0; c = 0

#define DIE deaths++; dead[me] = 1; asleep[me] = 0; woke[me] = 0; on_cell[me] = 0; \
	if :: owner == me && !R -> untold = 1 :: else fi; FORGET
#ifdef ENDS_ANYWHERE
#define MAY_DIE if :: true :: deaths < DEATHS -> d_step { DIE }; goto gone \
	:: ends < ENDS -> ends++; goto ending fi
#else
#define MAY_DIE if :: true :: deaths < DEATHS -> d_step { DIE }; goto gone fi
#endif
#define MAY_DIE_READING if :: true :: deaths < DEATHS -> d_step { readers_in--; DIE }; goto gone fi
#define MAY_DIE_WRITING if :: true :: deaths < DEATHS -> d_step { writers_in--; DIE }; goto gone fi

/* Wakes one of those who sleep on the word, any. */
inline wake_one(found) {
	atomic {
		found = 1;
		if
		:: asleep[1] -> asleep[1] = 0; woke[1] = 1
		:: asleep[2] -> asleep[2] = 0; woke[2] = 1
		:: asleep[3] -> asleep[3] = 0; woke[3] = 1
		:: asleep[4] -> asleep[4] = 0; woke[4] = 1
		:: else -> found = 0
		fi
	}
}

#define WAKE_READER(i) if :: asleep[i] && is_reader[i] -> asleep[i] = 0; woke[i] = 1 :: else fi
#define WAKE_ON_CELL(i, j) if :: on_cell[i] == (j) + 1 -> on_cell[i] = 0; woke[i] = 1 :: else fi

inline wake_readers() { d_step { WAKE_READER(1); WAKE_READER(2); WAKE_READER(3); WAKE_READER(4) } }
inline wake_on_cell(j) { d_step { WAKE_ON_CELL(1, j); WAKE_ON_CELL(2, j); WAKE_ON_CELL(3, j); WAKE_ON_CELL(4, j) } }

/* Wakes one; where nobody slept, for whom the lock is reserved, it is not. POINT: it may die there. */
#define WAKE_ONE_OR_UNRESERVE(POINT) \
	wake_one(ok); \
	if \
	:: !ok -> \
		POINT; \
		d_step { ok = 0; if :: owner == 0 && R && W -> R = 0; W = 0; ok = 1 :: else fi }; \
		if :: ok -> POINT; wake_one(ok) :: else fi \
	:: else \
	fi

/* The wake-ups that a word calls for which had these flags, and is no longer owned. */
#define WAKE_AS_UNLOCK(POINT) \
	if \
	:: had_s && flag -> wake_readers() \
	:: had_s && !flag -> WAKE_ONE_OR_UNRESERVE(POINT) \
	:: !had_s && had_w -> wake_one(ok) \
	:: else \
	fi

inline any_cell_starves() {
	flag = cell_s[0];
#if CELLS > 1
	flag = flag || cell_s[1];
#endif
#if CELLS > 2
	flag = flag || cell_s[2];
#endif
}

/* Claims a cell, any that is free: two readers do not look in the same order. */
inline claim(as_starving) {
	atomic {
		ok = 1;
		if
		:: cell[0] == 0 -> mine = 0
#if CELLS > 1
		:: cell[1] == 0 -> mine = 1
#endif
#if CELLS > 2
		:: cell[2] == 0 -> mine = 2
#endif
		:: else -> ok = 0
		fi;
		if :: ok -> cell[mine] = me; cell_s[mine] = as_starving; cell_w[mine] = 0 :: else fi
	}
}

proctype Process(byte me) {
	byte calls, so, mine = CELLS, k, c;
	bit sW, sD, sR, sS, slept, woken, starves, saw_reserved, was_reserved, ok, flag, had_s, had_w, by_time, phase, told;

next_call:
	skip;
	d_step { FORGET };
	if :: calls == CALLS -> goto gone :: else -> calls++ fi;
#ifdef WRITERS
	is_reader[me] = (me > WRITERS);
#else
	if :: is_reader[me] = 0 :: is_reader[me] = 1 fi;
#endif
	if :: is_reader[me] -> goto r_look :: else fi;

	/* A writer: from 0 in one step. */
	d_step {
		ok = 0;
		if :: owner == 0 && !W && !D && !R && !S -> owner = me; ok = 1; assert(!untold) :: else fi
	};
	if :: ok -> goto w_holds :: else fi;

w_look:
	skip;
	MAY_DIE;
	LOOK;
	if
	:: so == 0 && MAY_ENTER_FREE ->
		d_step {
			ok = 0;
			if
			:: SAME ->
				ok = 1; owner = me; by_time = (sR && !woken);
				if :: slept -> W = 1 :: else fi;
				if
				:: sS ->
					R = 1; S = 0;
#ifdef BAD_TOLD_BEFORE_DRAIN /* D is consumed by the swap that begins the drain */
					told = D; D = 0
#endif
				:: else -> R = 0; assert(D == untold); D = 0; untold = 0
				fi
			:: else
			fi
		};
		if :: !ok -> goto w_look :: ok && sS -> goto drain :: else -> goto w_holds fi
	:: else ->
		d_step {
			ok = 0;
			if :: SAME -> ok = 1; W = 1; if :: starves && owner != 0 -> S = 1 :: else fi; sW = W; sS = S :: else fi
		};
		if :: !ok -> goto w_look :: else fi
	fi;
	was_reserved = (so == 0);
	MAY_DIE;
	d_step { ok = 0; if :: SAME -> asleep[me] = 1; woke[me] = 0; woken = 0; ok = 1 :: else fi };
	if :: !ok -> goto w_look :: else fi;
	if
	:: atomic { woke[me] -> woke[me] = 0; woken = 1; slept = 1; saw_reserved = 0; starves = 1 }
	:: atomic {
			timeouts < TIMEOUTS -> timeouts++;
			if :: woke[me] -> woken = 1 :: else fi; asleep[me] = 0; woke[me] = 0
		};
		goto leave
	:: deaths < DEATHS -> d_step { DIE }; goto gone
#ifdef ENDS_ANYWHERE
	:: atomic { ends < ENDS -> ends++; asleep[me] = 0; woke[me] = 0 }; goto ending
#endif
#ifdef SLICES
	:: atomic { asleep[me] -> asleep[me] = 0; woken = 0; slept = 1; starves = 1 };
		LOOK;
		saw_reserved = was_reserved && so == 0 && sR;
		if
		:: so != 0 && dead[so] ->
			MAY_DIE;
			d_step {
				ok = 0;
				if
				:: SAME ->
					ok = 1; owner = me; W = 1; S = 0;
#ifdef BAD_DRAINER_TAKEN_AS_HOLDER /* nobody looks at the cells after a drainer that died */
					R = 0; assert(D == untold || !sR); D = 0; untold = 0
#else
					if :: sR -> skip :: else -> D = 0; assert(untold); untold = 0 fi
#endif
				:: else
				fi
			};
#ifdef BAD_DRAINER_TAKEN_AS_HOLDER
			if :: ok -> goto w_holds :: else fi
#else
			if :: ok && sR -> goto drain :: ok && !sR -> goto w_holds :: else fi
#endif
#ifdef TAKE_AWAY
		:: so != 0 && so != me && !dead[so] && sR && NO_CELL_LIVES ->
			MAY_DIE;
			d_step { if :: SAME -> owner = 0; R = 0; S = 1; W = 1; CELLS_ARE_SEEN :: else fi }
#endif
		:: else
		fi
#endif
	fi;
	goto w_look;

	/* The word is OWNER+R: nobody gets in. One pass over the cells, waiting at each that is taken. */
drain:
	k = 0;
drain_cell:
	skip;
	if :: k == CELLS -> goto drained :: else fi;
	MAY_DIE;
	d_step { c = cell[k]; had_w = cell_w[k]; flag = cell_s[k] };
	if
	:: c == 0 -> k++; goto drain_cell
#ifndef BAD_STARVING_WAITED_FOR /* the writer waits for a reader that waits for it */
	:: c != 0 && flag ->
		d_step {
			if :: by_time && cell[k] == c && cell_s[k] -> cell[k] = 0; cell_s[k] = 0; cell_w[k] = 0 :: else fi
		};
		k++; goto drain_cell
	:: c != 0 && !flag && dead[c] ->
#else
	:: c != 0 && dead[c] ->
#endif
		MAY_DIE;
#ifdef BAD_BLIND_CLEAR /* a store in the place of the exact swap */
		d_step { cell[k] = 0; cell_w[k] = 0; cell_s[k] = 0 };
#else
		d_step {
			if
			:: cell[k] == c && cell_w[k] == had_w && cell_s[k] == flag -> cell[k] = 0; cell_w[k] = 0; cell_s[k] = 0
			:: else
			fi
		};
#endif
		goto drain_cell
	:: else ->
		d_step { ok = 0; if :: cell[k] == c && cell_s[k] == flag && cell_w[k] == had_w -> cell_w[k] = 1; ok = 1 :: else fi };
		if :: !ok -> goto drain_cell :: else fi;
		MAY_DIE;
		d_step {
			ok = 0;
			if :: cell[k] == c && cell_s[k] == flag && cell_w[k] -> on_cell[me] = k + 1; woke[me] = 0; ok = 1 :: else fi
		};
		if :: !ok -> goto drain_cell :: else fi;
		if
		:: atomic { woke[me] -> woke[me] = 0 }
		:: atomic { timeouts < TIMEOUTS -> timeouts++; on_cell[me] = 0; woke[me] = 0 }; goto give_up
		:: deaths < DEATHS -> d_step { DIE }; goto gone
		:: atomic { ends < ENDS -> ends++; on_cell[me] = 0; woke[me] = 0 }; goto ending
#ifdef SLICES
		:: atomic { on_cell[me] != 0 -> on_cell[me] = 0 }
#endif
		fi;
		goto drain_cell
	fi;
drained:
	skip;
	MAY_DIE;
	d_step {
		ok = 0;
		if :: owner == me && R -> ok = 1; R = 0; assert((D || told) == untold); D = 0; untold = 0; told = 0 :: else fi
	};
	/* Its place was taken away: it waits again, as one that has slept. */
	if :: !ok -> slept = 1; goto w_look :: else fi;

w_holds:
	skip;
	d_step { writers_in++; assert(writers_in == 1 && readers_in == 0); assert(owner == me && !R && !D) };
	MAY_DIE_WRITING;
	if
	:: true
	:: atomic { ends < ENDS -> ends++; writers_in--; untold = 1 }; goto ending
#ifdef DOWNGRADE
	:: claim(0);
		if
		:: ok ->
#ifdef BAD_WORD_BEFORE_CELL /* the word is given back before the cell is claimed */
			d_step { cell[mine] = 0 };
			d_step { writers_in--; had_w = W; owner = 0; S = 1; R = 0; W = 0 };
			if :: had_w -> wake_one(ok) :: else fi;
			MAY_DIE;
			claim(0);
			d_step { readers_in++; assert(writers_in == 0) };
#else
			MAY_DIE_WRITING;
			any_cell_starves();
			d_step {
				writers_in--; readers_in++; had_w = W; had_s = S; owner = 0;
				R = had_s; W = had_s; S = 1; D = 0; CELLS_ARE_SEEN
			};
			MAY_DIE_READING;
			WAKE_AS_UNLOCK(MAY_DIE_READING);
#endif
			goto r_out
		:: else
		fi
#endif
	fi;
	writers_in--;
	d_step { ok = 0; if :: owner == me && !W && !S -> owner = 0; ok = 1 :: else fi };
	if :: ok -> goto next_call :: else fi;
unlock:
	skip;
	MAY_DIE;
	LOOK;
	assert(so == me && !sR);
	flag = 0;
	if :: sS -> any_cell_starves() :: else fi;
	d_step {
		ok = 0;
		if :: SAME -> ok = 1; had_w = W; had_s = S; owner = 0; R = had_s; W = had_s; S = had_s && flag; CELLS_ARE_SEEN :: else fi
	};
	if :: !ok -> goto unlock :: else fi;
	MAY_DIE;
	WAKE_AS_UNLOCK(MAY_DIE);
	goto next_call;

	/* Out of a drain, without the lock. */
give_up:
	skip;
	MAY_DIE;
	any_cell_starves();
	d_step {
		ok = 0;
		if
		:: owner == me && R ->
			ok = 1; had_w = W; had_s = S; owner = 0; R = had_s; W = had_s; assert(D == untold);
#ifdef BAD_GIVEN_UP_AS_FREE /* to 0, though there are readers in cells */
			S = 0
#else
			S = 1; CELLS_ARE_SEEN
#endif
		:: else
		fi
	};
	if :: !ok -> goto leave :: else fi;
	MAY_DIE;
	WAKE_AS_UNLOCK(MAY_DIE);
	goto next_call;

	/* Out of a wait, without the lock: a wake-up that this call received is passed on, and a starving cell goes. */
leave:
	skip;
	MAY_DIE;
	had_w = 0; flag = 0;
	if
	:: mine < CELLS ->
		d_step {
			if
			:: cell[mine] == me && cell_s[mine] -> flag = 1; had_w = cell_w[mine]; cell[mine] = 0; cell_s[mine] = 0; cell_w[mine] = 0
			:: else
			fi
		};
		if :: had_w -> MAY_DIE; wake_on_cell(mine) :: else fi;
		mine = CELLS
	:: else
	fi;
#ifndef NO_WAKE_UP_PASSED_ON
	if :: woken || flag -> MAY_DIE; WAKE_ONE_OR_UNRESERVE(MAY_DIE) :: else fi;
#endif
	goto next_call;

	/* A reader. */
r_look:
	skip;
	MAY_DIE;
	LOOK;
	if
	:: so == 0 && (sS || MAY_ENTER_FREE) ->
		if
		:: mine < CELLS ->
			d_step { ok = 0; if :: cell[mine] == me && cell_s[mine] -> cell_s[mine] = 0; ok = 1 :: else fi };
			/* A writer that was let in by time cleared it. */
			if :: !ok -> mine = CELLS; goto r_look :: else fi
		:: else -> claim(0); if :: !ok -> goto leave :: else fi
		fi;
second_look:
		skip;
		MAY_DIE;
		d_step {
#ifndef NO_SECOND_LOOK /* what was seen before the claim is believed */
			so = owner; sW = W; sD = D; sR = R; sS = S;
#endif
			ok = 0;
			if
			:: so == 0 && sS ->
				ok = 1; readers_in++; CELLS_ARE_SEEN; assert(D == untold);
#ifdef BAD_READER_TAKES_DEATH /* the next reader is told nothing */
				D = 0
#endif
			:: else
			fi
		};
		if
		:: ok -> goto r_in
		:: !ok && so == 0 && MAY_ENTER_FREE ->
			d_step {
				ok = 0;
				if
				:: SAME ->
					ok = 1; S = 1; R = 0; readers_in++; assert(writers_in == 0); assert(D == untold);
#ifdef BAD_READER_TAKES_DEATH
					D = 0
#endif
				:: else
				fi
			};
			if :: ok -> goto r_in :: else -> goto second_look fi
		:: else ->
			d_step {
				had_w = cell_w[mine]; cell_w[mine] = 0; k = mine;
				if :: starves -> cell_s[mine] = 1 :: else -> cell[mine] = 0; mine = CELLS fi
			};
#ifndef NO_WAKE_ON_CELL /* a reader that was not in wakes nobody */
			if :: had_w -> MAY_DIE; wake_on_cell(k) :: else fi;
#endif
			k = 0; had_w = 0
		fi
	:: else
	fi;
	if :: starves && mine == CELLS -> claim(1); if :: !ok -> mine = CELLS :: else fi :: else fi;
	MAY_DIE;
	LOOK;
	if :: so == 0 && (sS || MAY_ENTER_FREE) -> goto r_look :: else fi;
	d_step {
		ok = 0;
		if :: SAME -> ok = 1; W = 1; if :: starves && owner != 0 -> S = 1 :: else fi; sW = W; sS = S :: else fi
	};
	if :: !ok -> goto r_look :: else fi;
	was_reserved = (so == 0);
	MAY_DIE;
	d_step { ok = 0; if :: SAME -> asleep[me] = 1; woke[me] = 0; woken = 0; ok = 1 :: else fi };
	if :: !ok -> goto r_look :: else fi;
	if
	:: atomic { woke[me] -> woke[me] = 0; woken = 1; slept = 1; saw_reserved = 0; starves = 1 }
	:: atomic {
			timeouts < TIMEOUTS -> timeouts++;
			if :: woke[me] -> woken = 1 :: else fi; asleep[me] = 0; woke[me] = 0
		};
		goto leave
	:: deaths < DEATHS -> d_step { DIE }; goto gone
#ifdef ENDS_ANYWHERE
	:: atomic { ends < ENDS -> ends++; asleep[me] = 0; woke[me] = 0 }; goto ending
#endif
#ifdef SLICES
	:: atomic { asleep[me] -> asleep[me] = 0; woken = 0; slept = 1; starves = 1 };
		LOOK;
		saw_reserved = was_reserved && so == 0 && sR;
		if
		:: so != 0 && dead[so] ->
			MAY_DIE;
			d_step {
				if
				:: SAME ->
					owner = 0; W = 1;
#ifdef BAD_DEAD_DRAINER_AS_FREE /* its readers are forgotten */
					S = 0;
#else
					S = sR;
#endif
					if :: sR -> R = 0 :: else -> D = 1; assert(untold) fi;
					CELLS_ARE_SEEN
				:: else
				fi
			}
#ifdef TAKE_AWAY
		:: so != 0 && !dead[so] && sR && NO_CELL_LIVES ->
			MAY_DIE;
			d_step { if :: SAME -> owner = 0; R = 0; S = 1; W = 1; CELLS_ARE_SEEN :: else fi }
#endif
		:: else
		fi
#endif
	fi;
	goto r_look;

r_in:
	skip;
	phase = sR;
	MAY_DIE_READING;
	/* A reader does not use up what it was woken for: it goes to the next sleeper. */
	if
	:: phase && (woken || starves) ->
#ifndef NO_WAKE_AFTER_PHASE /* the last of a read phase lets no writer go on */
		any_cell_starves();
		if :: !flag -> MAY_DIE_READING; WAKE_ONE_OR_UNRESERVE(MAY_DIE_READING) :: else fi
#else
		skip
#endif
	:: !phase && woken ->
#ifndef NO_WAKE_BY_READER
		WAKE_ONE_OR_UNRESERVE(MAY_DIE_READING)
#else
		skip
#endif
	:: else
	fi;
r_out:
	skip;
	MAY_DIE_READING;
	if
	:: true
	:: atomic { ends < ENDS -> ends++; readers_in-- }; goto ending
	fi;
	d_step { assert(cell[mine] == me && !cell_s[mine]); readers_in--; had_w = cell_w[mine]; k = mine; cell[mine] = 0; cell_w[mine] = 0; mine = CELLS };
	MAY_DIE;
	if :: had_w -> wake_on_cell(k) :: else fi;
	goto next_call;

	/* A thread that ends: whatever names it is swept, the word first, by exact swaps. It is killed meanwhile, or not. */
ending:
	skip;
	d_step { FORGET };
#include "shared_end.pml"
gone:
	skip
}

init {
	atomic {
		byte i = 1;
		do :: i <= PROCESSES -> run Process(i); i++ :: else -> break od
	}
}
