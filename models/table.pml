/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Readers beyond a lock's own cells: records (`key`, `id`) of a table that all locks share.
 *
 * The records of a lock begin at a place of its own; `level` says how many of them a writer of that lock looks at, and
 * only grows. A record is claimed with D in its key, named, and then made valid. The word is 0, a writer, or SHARED.
 *
 *     READERS, WRITERS, CALLS     so many of each, so many calls of each of them, at either of two locks
 *     RECORDS             of the table
 *     DEATHS              so many in all, at any step
 */
#ifndef READERS
#define READERS 2
#endif
#ifndef WRITERS
#define WRITERS 1
#endif
#ifndef RECORDS
#define RECORDS 2
#endif
#ifndef CALLS
#define CALLS 2
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#define SHARED 9
#define MOST 8

byte word[2]; byte level[2];
byte key[RECORDS]; bit key_d[RECORDS]; byte id[RECORDS];
bit dead[MOST];
byte deaths;

/* The truth: who is in, and which lock a reader wants or has, counted from 1. */
byte readers_in[2]; byte writers_in[2]; byte wants[MOST];

#define HOME(lock) (lock)
#define FORGET p = 0; d = 0; l = 0; ok = 0; k = 0; w = 0; top = 0; i = 0
#define MAY_DIE if :: true :: deaths < DEATHS -> d_step { deaths++; dead[me] = 1; FORGET }; goto gone fi
#define RAISE d_step { if :: level[l] < d + 1 -> level[l] = d + 1 :: else fi }

proctype Reader(byte me) {
	byte p, l, d, k, w, top, i, calls;
	bit ok;

next_call:
	skip;
	d_step { FORGET; wants[me] = 0 };
	if :: calls == CALLS -> goto gone :: else -> calls++ fi;
	if :: l = 0 :: l = 1 fi;
	wants[me] = l + 1;
	if :: d = 0 :: d = 1 fi;
	p = (HOME(l) + d) % RECORDS;
#ifndef BAD_LEVEL_AFTER_CLAIM /* a writer looks at too few */
	MAY_DIE;
	RAISE;
#endif
	MAY_DIE;
	k = key[p];
	if :: k == 0 || dead[k] -> MAY_DIE :: else -> goto next_call fi;
#ifdef BAD_BLIND_CLAIM /* a store in the place of the exact swap */
	d_step { key[p] = me; key_d[p] = 1 };
#else
	d_step {
		ok = 0;
		if
		:: key[p] == k ->
			key[p] = me; ok = 1;
#ifdef NO_D_WHILE_NAMED /* it stands for the lock that the record was used for before */
			key_d[p] = 0
#else
			key_d[p] = 1
#endif
		:: else
		fi
	};
	if :: !ok -> goto next_call :: else fi;
#endif
#ifndef BAD_NAMED_AFTER_LOOK
	MAY_DIE;
	id[p] = l + 1;
#endif
	MAY_DIE;
	key_d[p] = 0;
	MAY_DIE;
#ifdef NO_SECOND_LOOK
	d_step { ok = 1; readers_in[l]++; assert(writers_in[l] == 0) };
#else
	d_step { w = word[l]; ok = (w == SHARED); if :: ok -> readers_in[l]++; assert(writers_in[l] == 0) :: else fi };
	if
	:: w == 0 -> d_step { if :: word[l] == 0 -> word[l] = SHARED; ok = 1; readers_in[l]++; assert(writers_in[l] == 0) :: else fi }
	:: else
	fi;
#endif
	if :: !ok -> goto back :: else fi;
#ifdef BAD_NAMED_AFTER_LOOK /* a writer takes the record for another lock's */
	id[p] = l + 1;
#endif
#ifdef BAD_LEVEL_AFTER_CLAIM
	RAISE;
#endif
	if :: true :: deaths < DEATHS -> d_step { deaths++; dead[me] = 1; readers_in[l]--; FORGET }; goto gone fi;
	d_step { readers_in[l]--; assert(key[p] == me); key[p] = 0; wants[me] = 0 };
	goto next_call;
back:
	skip;
	MAY_DIE;
	d_step { if :: key[p] == me -> key[p] = 0 :: else fi };
	goto next_call;
gone:
	skip
}

proctype Writer(byte me) {
	byte p, l, d, k, w, top, i, calls;
	bit ok;

next_call:
	skip;
	d_step { FORGET };
	if :: calls == CALLS -> goto gone :: else -> calls++ fi;
	if :: l = 0 :: l = 1 fi;
	w = word[l];
	if
	:: w == 0 || w == SHARED || dead[w] ->
		d_step { ok = 0; if :: word[l] == w -> word[l] = me; ok = 1 :: else fi };
		if :: !ok -> goto next_call :: ok && w == 0 -> goto holds :: else fi
	:: else -> goto next_call
	fi;
	MAY_DIE;
	top = level[l];
	do
	:: i < top ->
		p = (HOME(l) + i) % RECORDS;
look:
		skip;
		MAY_DIE;
		d_step { k = key[p]; ok = key_d[p] };
		if
		:: k == 0 || ok -> i++
		:: else ->
			if
			:: id[p] != l + 1 -> i++
			:: else ->
				if
				:: dead[k] -> MAY_DIE; d_step { if :: key[p] == k && !key_d[p] -> key[p] = 0 :: else fi }
				:: else ->
					/* A writer waits for nobody who does not want its lock. */
					d_step { assert(dead[k] || key[p] != k || wants[k] == l + 1 || id[p] != l + 1 || key_d[p]) };
					(!(key[p] == k && id[p] == l + 1 && !key_d[p]) || dead[k])
				fi;
				goto look
			fi
		fi
	:: else -> break
	od;
#ifdef BAD_LEVEL_LOWERED /* a reader that raised it just before is not looked at */
	MAY_DIE;
	level[l] = 0;
#endif
holds:
	skip;
	d_step { writers_in[l]++; assert(writers_in[l] == 1 && readers_in[l] == 0) };
	if :: true :: deaths < DEATHS -> d_step { deaths++; dead[me] = 1; writers_in[l]--; FORGET }; goto gone fi;
	d_step { writers_in[l]--; word[l] = 0 };
	goto next_call;
gone:
	skip
}

init {
	atomic {
		byte n = 1;
		do :: n <= READERS -> run Reader(n); n++ :: else -> break od;
		n = 1;
		do :: n <= WRITERS -> run Writer(READERS + n); n++ :: else -> break od
	}
}
