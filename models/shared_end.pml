/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * A part of shared.pml: the sweep at the end of a thread. The process lives on, and nobody may have to judge the thread:
 * in another PID namespace nobody can. So nothing that names it may be left, and nobody may sleep on for it.
 */
#define MAY_BE_KILLED if :: true :: deaths < DEATHS -> d_step { deaths++; dead[me] = 1; FORGET }; goto gone fi

end_word:
	skip;
	MAY_BE_KILLED;
	LOOK;
	had_w = 0;
	if
	:: so == me ->
		MAY_BE_KILLED;
		d_step {
			ok = 0;
			if
#ifdef BAD_END_BLIND_WORD /* a store of what follows from the word that was read */
			:: true ->
#else
			:: SAME ->
#endif
				ok = 1; owner = 0; R = 0; S = 0; W = sW; had_w = sW;
				if
#ifdef BAD_END_DRAIN_AS_FREE /* its readers are forgotten */
				:: sR -> S = 0
#elif defined(BAD_END_TELLS_OF_DRAIN) /* a drain that ends is told as a death */
				:: sR -> S = 1; D = 1
#else
				:: sR -> S = 1
#endif
				:: else -> D = 1
				fi;
				CELLS_ARE_SEEN
			:: else
			fi
		};
		if :: !ok -> goto end_word :: else fi;
		MAY_BE_KILLED;
#ifndef NO_WAKE_AT_END
		if :: had_w -> wake_one(ok) :: else fi
#endif
	:: else
	fi;
#ifndef NO_CELLS_AT_END
	k = 0;
end_cell:
	skip;
	if :: k == CELLS -> goto ended :: else fi;
	MAY_BE_KILLED;
	d_step { c = cell[k]; had_w = cell_w[k]; flag = cell_s[k] };
	if
	:: c == me ->
		MAY_BE_KILLED;
		d_step {
			ok = 0;
			if
#ifdef BAD_END_BLIND_CELL /* a store in the place of the exact swap */
			:: true ->
#else
			:: cell[k] == c && cell_w[k] == had_w && cell_s[k] == flag ->
#endif
				cell[k] = 0; cell_w[k] = 0; cell_s[k] = 0; ok = 1
			:: else
			fi
		};
		if :: !ok -> goto end_cell :: else fi;
		MAY_BE_KILLED;
#ifndef NO_CELL_WAKE_AT_END
		if :: had_w -> wake_on_cell(k) :: else fi
#endif
	:: else
	fi;
	k++;
	goto end_cell;
ended:
	skip;
#endif
	d_step { assert(owner != me && !NAMED_BY_A_CELL); FORGET };
