/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Generations that begin anew, with readers in cells: a cell names an entry and its generation, of which it can tell NAMES
 * apart. A process that dies leaves its cell; the next that attaches to the entry may clear nothing and may get a cell
 * with its own name, if nobody sweeps where the names begin again.
 *
 * One lock, one entry that processes attach to one after the other (its record lock is held by one), and readers and
 * writers at other entries that never end. Any of them may claim a cell of a generation that is past as if it were free,
 * and a drain clears it; both by an exact swap. Steps are as in shared.pml.
 *
 *     LIVES, DEATHS       so many processes at the entry, one after the other; so many die at any step, the others detach
 *     NAMES               the generations that a word can tell apart
 *     CELLS, READERS, WRITERS     at entries of their own, one call each
 *
 * What is argued and not in here: nobody stands still between judging a name and swapping it while the entry is used
 * 2^25 times. So no new generation gets a name that somebody is just judging.
 */
#ifndef LIVES
#define LIVES 3
#endif
#ifndef DEATHS
#define DEATHS 2
#endif
#ifndef NAMES
#define NAMES 2
#endif
#ifndef CELLS
#define CELLS 1
#endif
#ifndef READERS
#define READERS 1
#endif
#ifndef WRITERS
#define WRITERS 1
#endif
/* Names: 1 to NAMES are generations of the entry; from here on they are those who never end. */
#define OTHERS 5
#define MOST 8

byte owner; bit S, R, D;
byte cell[CELLS];
/* The entry: its record lock is held, its state is live, its generation as far as names can tell. */
bit locked, live; byte generation;
/* The process at the entry is being killed. */
bit dying;
/* What process n judges: a name, or 0. */
byte judges[MOST];

/* The truth. */
byte writers_in, readers_in;
bit untold;

#define NAME(g) ((g) + 1)
#define IS_GENERATION(name) ((name) >= 1 && (name) <= NAMES)
#define NOBODY_JUDGES(name) (judges[0] != (name) && judges[5] != (name) && judges[6] != (name) && judges[7] != (name))
#define CELLS_ARE_SEEN assert(readers_in == 0 || (owner == 0 && S) || (owner != 0 && R))

/* Whether `name` is of a process that is gone: its generation is over, or its record lock is free. */
inline judge(name) {
	d_step { judges[slot] = name; is_dead = 0 };
	if
	:: IS_GENERATION(name) ->
		d_step { is_live = live; g = generation };
		if
		:: !is_live || NAME(g) != name -> is_dead = 1
		:: else ->
			if
			:: !locked -> is_dead = 1; d_step { if :: live && generation == g -> live = 0 :: else fi }
			:: else
			fi
		fi
	:: else
	fi
}

/* One call, of a reader or a writer, which ends without the lock where it would have to wait for somebody who lives. */
inline call_as_reader() {
	k = 0;
	do
	:: k == CELLS -> break
	:: else ->
		c = cell[k];
		if
		:: c == 0 -> d_step { if :: cell[k] == 0 -> cell[k] = my_name; mine = k :: else fi }
		:: else ->
			judge(c);
			if
			:: is_dead ->
				d_step {
#ifdef BAD_BLIND_CLAIM /* a store in the place of the exact swap: of two who find the same cell both have it */
					cell[k] = my_name; mine = k;
#else
					if :: cell[k] == c -> cell[k] = my_name; mine = k :: else fi;
#endif
				}
			:: else
			fi;
			judges[slot] = 0
		fi;
		if :: mine < CELLS -> break :: else -> k++ fi
	od;
	if
	:: mine < CELLS ->
		d_step {
			w = owner; ok = 0;
			if :: w == 0 && S -> ok = 1; reading = 1; readers_in++; CELLS_ARE_SEEN; assert(D == untold) :: else fi
		};
		if
		:: !ok && w == 0 ->
			d_step { if :: owner == 0 && !S -> S = 1; ok = 1; reading = 1; readers_in++; CELLS_ARE_SEEN; assert(D == untold) :: else fi }
		:: else
		fi;
		if
		:: ok -> d_step { assert(cell[mine] == my_name); reading = 0; readers_in--; cell[mine] = 0; ok = 0 }
		:: else -> d_step { assert(cell[mine] == my_name); cell[mine] = 0 }
		fi;
		mine = CELLS
	:: else
	fi
}

inline call_as_writer() {
	d_step { w = owner; had_s = S; had_r = R; had_d = D };
	is_dead = 0;
	if
	:: w != 0 -> judge(w)
	:: else
	fi;
	if
	:: w == 0 || is_dead ->
		d_step {
			ok = 0;
			if
			:: owner == w && S == had_s && R == had_r && D == had_d ->
				ok = 1; owner = my_name;
				/* Readers may be in, or a drainer died: it drains. A dead holder, or free: it holds. */
				R = (w == 0 && S) || (w != 0 && R);
				S = 0;
				if :: !R -> assert(untold == (w != 0 || D)); untold = 0; D = 0 :: else fi
			:: else
			fi
		};
		judges[slot] = 0;
		if
		:: ok && R ->
			k = 0;
			do
			:: k == CELLS -> break
			:: else ->
				c = cell[k];
				if
				:: c == 0 -> k++
				:: else ->
					judge(c);
					if
					:: is_dead -> d_step { if :: cell[k] == c -> cell[k] = 0 :: else fi }
					:: else -> ok = 0
					fi;
					judges[slot] = 0;
					/* It gives up: a reader lives. */
					if :: !ok -> break :: else fi
				fi
			od;
			if
			:: ok -> d_step { assert(owner == my_name && R); assert(D == untold); R = 0; untold = 0; D = 0 }
			:: else -> d_step { assert(owner == my_name && R); owner = 0; R = 0; S = 1; CELLS_ARE_SEEN }
			fi
		:: else
		fi;
		if
		:: ok ->
			d_step { writing = 1; writers_in++; assert(writers_in == 1 && readers_in == 0 && owner == my_name && !R) };
			d_step { writing = 0; writers_in--; assert(owner == my_name); owner = 0; ok = 0 }
		:: else
		fi
	:: else -> judges[slot] = 0
	fi
}

/* Those who never end. */
proctype Other(byte my_name; bit is_reader) {
	byte slot = my_name, mine = CELLS, k, c, g, w;
	bit is_dead, is_live, ok, had_s, had_r, had_d, reading, writing;
	if :: is_reader -> call_as_reader() :: else -> call_as_writer() fi
}

#if CELLS == 1
#define NO_CELL_NAMES(name) (cell[0] != (name))
#else
#define NO_CELL_NAMES(name) (cell[0] != (name) && cell[1] != (name))
#endif

/* Those who attach to the entry, one after the other. */
proctype Lives() {
	byte slot = 0, my_name, mine, k, c, g, w, life;
	bit is_dead, is_live, ok, had_s, had_r, had_d, reading, writing;

next_life:
	skip;
	d_step {
		my_name = 0; mine = CELLS; k = 0; c = 0; g = 0; w = 0; is_dead = 0; is_live = 0; ok = 0;
		had_s = 0; had_r = 0; had_d = 0; reading = 0; writing = 0
	};
	if :: life == LIVES -> goto gone :: else -> life++ fi;
	locked = 1;
	/* Its predecessor is dead, also where nobody has found out yet. */
	live = 0;
	g = (generation + 1) % NAMES;
	my_name = NAME(g);
	/* Where names begin again, whatever names the entry is swept: what is left would be taken for the new process's. */
	if
	:: g == 0 ->
#ifndef NO_WORD_SWEEP
		d_step { w = owner; had_s = S; had_r = R; had_d = D };
		if
		:: IS_GENERATION(w) ->
			d_step {
				if
				:: owner == w && S == had_s && R == had_r && D == had_d ->
					owner = 0; R = 0;
#ifdef BAD_SWEPT_DRAIN_IS_TOLD /* a drain that was swept is told as a death */
					S = 0; D = 1;
#else
					if :: had_r -> S = 1 :: else -> S = 0; D = 1; assert(untold) fi;
#endif
					CELLS_ARE_SEEN
				:: else
				fi
			}
		:: else
		fi;
#endif
#ifndef NO_CELL_SWEEP
		k = 0;
		do
		:: k == CELLS -> break
		:: else ->
			c = cell[k];
			if
			:: IS_GENERATION(c) ->
#ifdef BAD_BLIND_SWEEP /* a store in the place of the exact swap */
				cell[k] = 0
#else
				d_step { if :: cell[k] == c -> cell[k] = 0 :: else fi }
#endif
			:: else
			fi;
			k++
		od;
#endif
		/* Death on the way needs no mending: the next one sweeps again. */
		if :: true :: locked = 0; goto next_life fi
	:: else
	fi;
	d_step { NOBODY_JUDGES(my_name) -> generation = g; live = 1 };
	d_step { w = 0; c = 0; k = 0; had_s = 0; had_r = 0; had_d = 0; assert(NO_CELL_NAMES(my_name) && owner != my_name) };
	{
		if :: call_as_reader() :: call_as_writer() fi
	} unless {
		d_step {
			dying -> dying = 0; judges[0] = 0;
			if :: owner == my_name && !R -> untold = 1 :: else fi;
			if :: reading -> readers_in-- :: else fi;
			if :: writing -> writers_in-- :: else fi
		};
		locked = 0;
		goto next_life
	};
	live = 0;
	locked = 0;
	goto next_life;
gone:
	skip
}

/* Kills whoever is at the entry, at any step of its call. */
proctype Fate() {
	byte n;
	do :: d_step { n < DEATHS && !dying -> n++; dying = 1 } :: break od
}

init {
	atomic {
		byte n = 0;
		run Lives(); run Fate();
		do :: n < READERS -> run Other(OTHERS + n, 1); n++ :: else -> break od;
		n = 0;
		do :: n < WRITERS -> run Other(OTHERS + READERS + n, 0); n++ :: else -> break od
	}
}
