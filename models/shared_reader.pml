/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * A part of shared.pml: the calls of a reader. It claims a cell, then looks at the word again. One that starves keeps its
 * cell with S in it while it sleeps.
 */
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
	d_step {
		assert(cell[mine] == me && !cell_s[mine]);
		readers_in--; had_w = cell_w[mine]; k = mine;
		cell[mine] = 0; cell_w[mine] = 0; mine = CELLS
	};
	MAY_DIE;
	if :: had_w -> wake_on_cell(k) :: else fi;
	goto next_call;
