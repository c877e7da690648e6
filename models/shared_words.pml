/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * A part of shared.pml: the word and its cells, the kernel's side, deaths, and the steps that several calls make.
 */
byte owner; bit W, D, R, S;
byte cell[CELLS]; bit cell_w[CELLS]; bit cell_s[CELLS];

/* The kernel: who sleeps on the word, who was woken, who sleeps on which cell (counted from 1). */
bit asleep[MOST]; bit woke[MOST]; byte on_cell[MOST];
bit is_reader[MOST]; bit dead[MOST];
byte deaths, timeouts, ends, in_vain;

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
	:: d_step { ends < ENDS -> ends++; if :: owner == me && !R -> untold = 1 :: else fi }; goto ending fi
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
