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
 *     IN_VAIN             so many in all are woken on the word for nothing: in the class of a cancel object of another
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
#ifndef IN_VAIN
#define IN_VAIN 0
#endif
#ifndef ENDS
#define ENDS 0
#endif
#define MOST 5 /* one more than the processes of the largest run: they count from 1 */

#include "shared_words.pml"

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
			in_vain < IN_VAIN && asleep[me] -> in_vain++;
			asleep[me] = 0; woken = 1; slept = 1; saw_reserved = 0; starves = 1
		}
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

#include "shared_reader.pml"

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
