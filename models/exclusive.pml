/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The lock word without readers: it has one holder, the death of the last is told once, and nobody sleeps on.
 *
 * The word is one atomic value, here in parts: `owner`, W (somebody may sleep), D (free, and the last holder died),
 * R (free, and reserved for those who slept), S (held, and somebody starves). Steps are as in shared.pml.
 *
 *     PROCESSES, CALLS    so many processes, so many pairs of lock and unlock of each
 *     SLICES              a sleep may end by itself, and its end is used to judge
 *     DEATHS, TIMEOUTS    so many in all, at any step; a timeout ends a sleep
 *     IN_VAIN             so many in all are woken for nothing: in the class of a cancel object of another
 *     REPAIR              somebody marks a dead holder's lock, and may die before the wake-up
 */
#ifndef PROCESSES
#define PROCESSES 3
#endif
#ifndef CALLS
#define CALLS 2
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
#define MOST 4

byte owner; bit W, D, R, S;
bit asleep[MOST]; bit woke[MOST]; bit dead[MOST];
byte deaths, timeouts, in_vain;

/* The truth, whatever the word says. */
byte holders;
bit untold;

#define LOOK d_step { so = owner; sW = W; sD = D; sR = R; sS = S }
#define SAME (owner == so && W == sW && D == sD && R == sR && S == sS)
#define FORGET so = 0; sW = 0; sD = 0; sR = 0; sS = 0; slept = 0; woken = 0; starves = 0; saw_reserved = 0; \
	was_reserved = 0; had_w = 0; ok = 0
#define DIE deaths++; dead[me] = 1; asleep[me] = 0; woke[me] = 0; if :: owner == me -> untold = 1 :: else fi; FORGET
#define MAY_DIE if :: true :: deaths < DEATHS -> d_step { DIE }; goto gone fi

inline wake_one(found) {
	atomic {
		found = 1;
		if
		:: asleep[1] -> asleep[1] = 0; woke[1] = 1
		:: asleep[2] -> asleep[2] = 0; woke[2] = 1
		:: asleep[3] -> asleep[3] = 0; woke[3] = 1
		:: else -> found = 0
		fi
	}
}

#ifdef NO_RESERVATION_UNDONE /* a lock stays reserved for sleepers that are not there */
#define WAKE_ONE_OR_UNRESERVE wake_one(ok)
#else
#define WAKE_ONE_OR_UNRESERVE \
	wake_one(ok); \
	if \
	:: !ok -> \
		MAY_DIE; \
		d_step { ok = 0; if :: owner == 0 && R && W && !D && !S -> R = 0; W = 0; ok = 1 :: else fi }; \
		if :: ok -> MAY_DIE; wake_one(ok) :: else fi \
	:: else \
	fi
#endif

proctype Process(byte me) {
	byte calls, so;
	bit sW, sD, sR, sS, slept, woken, starves, saw_reserved, was_reserved, had_w, ok;

next_call:
	skip;
	d_step { FORGET };
	if :: calls == CALLS -> goto gone :: else -> calls++ fi;
	d_step {
		ok = 0;
		if :: owner == 0 && !W && !D && !R && !S -> owner = me; ok = 1; assert(!untold) :: else fi
	};
	if :: ok -> goto holds :: else fi;
look:
	skip;
	MAY_DIE;
	LOOK;
	if
	:: so == 0 && (!sR || woken || (saw_reserved && slept)) ->
		d_step {
			ok = 0;
			if
			:: SAME ->
				owner = me; R = 0; S = 0; D = 0; ok = 1; assert(untold == sD); untold = 0;
#ifdef NO_WORD_FOR_OTHERS /* a holder that has slept does not say that others may sleep */
				W = 0
#else
				if :: slept -> W = 1 :: else fi
#endif
			:: else
			fi
		};
		if :: ok -> goto holds :: else -> goto look fi
	:: else ->
		d_step {
			ok = 0;
			if :: SAME -> ok = 1; W = 1; if :: starves && owner != 0 -> S = 1 :: else fi; sW = W; sS = S :: else fi
		};
		if :: !ok -> goto look :: else fi
	fi;
	was_reserved = (so == 0);
	MAY_DIE;
	/* The kernel compares and puts to sleep in one step. What it was woken for it has until it really sleeps again. */
#ifdef BAD_WAKE_UP_FORGOTTEN /* ... or until it tries to */
	woken = 0;
#endif
	d_step { ok = 0; if :: SAME -> asleep[me] = 1; woke[me] = 0; woken = 0; ok = 1 :: else fi };
	if :: !ok -> goto look :: else fi;
	if
	:: atomic { woke[me] -> woke[me] = 0; woken = 1; slept = 1; starves = 1; saw_reserved = 0 }
	:: atomic {
			in_vain < IN_VAIN && asleep[me] -> in_vain++;
			asleep[me] = 0; woken = 1; slept = 1; starves = 1; saw_reserved = 0
		}
	:: atomic {
			timeouts < TIMEOUTS -> timeouts++;
			if :: woke[me] -> woken = 1 :: else fi; asleep[me] = 0; woke[me] = 0
		};
		goto leave
	:: deaths < DEATHS -> d_step { DIE }; goto gone
#ifdef SLICES
	:: atomic { asleep[me] -> asleep[me] = 0; woken = 0; slept = 1; starves = 1 };
		LOOK;
		saw_reserved = was_reserved && so == 0;
		if
		:: so != 0 && dead[so] ->
			MAY_DIE;
			d_step {
				ok = 0;
				if
#ifdef BAD_BLIND_TAKEOVER /* the lock is taken over whoever holds it by now */
				:: true ->
#else
				:: SAME ->
#endif
					owner = me; W = 1; R = 0; D = 0; ok = 1; untold = 0
				:: else
				fi
			};
			if :: ok -> goto holds :: else fi
		:: else
		fi
#endif
	fi;
	goto look;
holds:
	skip;
	d_step { holders++; assert(holders == 1); assert(owner == me) };
	if :: true :: deaths < DEATHS -> d_step { holders--; DIE }; goto gone fi;
	holders--;
	d_step { ok = 0; if :: owner == me && !W && !S -> owner = 0; ok = 1 :: else fi };
	if :: ok -> goto next_call :: else fi;
unlock:
	skip;
	MAY_DIE;
	LOOK;
	assert(so == me);
	d_step { ok = 0; if :: SAME -> had_w = W; owner = 0; R = S; W = S; S = 0; ok = 1 :: else fi };
	if :: !ok -> goto unlock :: else fi;
	MAY_DIE;
#ifndef NO_WAKE_AT_UNLOCK
	if :: had_w -> WAKE_ONE_OR_UNRESERVE :: else fi;
#endif
	goto next_call;
leave:
	skip;
#ifndef NO_WAKE_UP_PASSED_ON /* a waiter that leaves keeps the wake-up that it received */
	if :: woken -> WAKE_ONE_OR_UNRESERVE :: else fi;
#endif
	goto next_call;
gone:
	skip
}

#ifdef REPAIR
proctype Repair() {
	byte so, n;
	bit sW, sD, sR, sS, ok;
	do
	:: n < 2 ->
		n++;
		LOOK;
		if
		:: so != 0 && dead[so] ->
			d_step { ok = 0; if :: SAME -> owner = 0; D = 1; W = 1; S = 0; R = 0; ok = 1 :: else fi };
			if :: ok -> if :: wake_one(ok) :: true fi :: else fi
		:: else
		fi
	:: break
	od
}
#endif

init {
	atomic {
		byte i = 1;
		do :: i <= PROCESSES -> run Process(i); i++ :: else -> break od;
#ifdef REPAIR
		run Repair()
#endif
	}
}
