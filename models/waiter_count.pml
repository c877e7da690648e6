/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Why waiters are not counted. A waiter that was killed leaves the count too high, and each later unlock makes a system
 * call for it. -DMENDED: an unlock whose wake-up found nobody sets the count to 0; a waiter that was just about to sleep
 * brings it below zero. A holder and two waiters.
 */
byte word = 1; short waiters;
bit asleep[4]; bit woke[4];

inline unlock() {
	word = 0;
	count = waiters;
	if
	:: count != 0 ->
		atomic {
			found = 1;
			if :: asleep[2] -> asleep[2] = 0; woke[2] = 1 :: asleep[3] -> asleep[3] = 0; woke[3] = 1 :: else -> found = 0 fi
		};
#ifdef MENDED
		if :: !found -> d_step { if :: waiters == count -> waiters = 0 :: else fi } :: else fi
#endif
	:: else
	fi
}

proctype Holder() {
	short count; bit found; byte n;
	do :: n < 2 -> n++; unlock(); atomic { word == 0 -> word = 1 } :: else -> break od;
	unlock()
}

proctype Waiter(byte me) {
	byte seen; short count; bit found, ok;
	waiters++;
look:
	skip;
	seen = word;
	if
	:: seen == 0 -> d_step { ok = 0; if :: word == 0 -> word = me; ok = 1 :: else fi }; if :: ok -> goto holds :: else -> goto look fi
	:: else
	fi;
	d_step { ok = 0; if :: word == seen -> asleep[me] = 1; woke[me] = 0; ok = 1 :: else fi };
	if :: !ok -> goto look :: else fi;
	atomic { woke[me] -> woke[me] = 0 };
	goto look;
holds:
	skip;
	d_step { waiters--; assert(waiters >= 0) };
	unlock()
}

init { atomic { run Holder(); run Waiter(2); run Waiter(3) } }
