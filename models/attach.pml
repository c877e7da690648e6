/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Attaching to entries, reusing them, and judging a word by the entry that it names.
 *
 * An entry has a record lock, whose holder is in `locked` (the kernel gives it back at a death), and one atomic state: a
 * generation, and whether it is live. A word names an entry and its generation, of which it has so many values as
 * NAMES says. To attach: a live entry whose record lock is free is marked dead, by a swap of what was read before asking;
 * the record lock is taken; only then the state is read again; where the next generation begins anew, words that name
 * the entry are swept; the state becomes live.
 *
 *     PROCESSES, LIVES    so many processes, which die at any step and come again, so many lives of each
 *     NAMES               the generations that a word can tell apart
 *     FIRST               the generation of both entries at the start: NAMES - 2 brings a new beginning about
 */
#ifndef PROCESSES
#define PROCESSES 2
#endif
#ifndef LIVES
#define LIVES 2
#endif
#ifndef NAMES
#define NAMES 8
#endif
#ifndef FIRST
#define FIRST 0
#endif
#define ENTRIES 2

byte locked[ENTRIES]; bit live[ENTRIES]; byte generation[ENTRIES];
/* The word: 0 free, 1 its owner died, else an entry and 2. */
byte word_entry, word_name;

/* The truth, whatever the word says. */
byte holder;
bit untold;
byte finished;

#define NAME(generation) ((generation) % NAMES)
#define DIE \
	atomic { d_step { \
		x = 0; \
		do :: x < ENTRIES -> if :: locked[x] == me -> locked[x] = 0 :: else fi; x++ :: else -> break od; \
		x = 0; \
		if :: holder == me -> holder = 0; untold = 1 :: else fi \
	} }
#define MAY_DIE if :: true :: life < LIVES -> DIE; goto dead fi

proctype Process(byte me) {
	byte life = 1, e, mine, my_name, x, se, sn, g;
	bit is_live, is_dead;

attach:
	e = 0;
	do
	:: e >= ENTRIES -> goto finish
	:: else ->
		d_step { is_live = live[e]; g = generation[e] };
		if
		:: is_live && locked[e] == 0 ->
			MAY_DIE;
			d_step { if :: live[e] && generation[e] == g -> live[e] = 0 :: else fi }
		:: else
		fi;
#ifdef BAD_STATE_BEFORE_LOCK /* live before the record lock is held: a judge sees a free record lock */
		if
		:: locked[e] == 0 ->
			d_step { generation[e] = generation[e] + 1; live[e] = 1; my_name = NAME(generation[e]) };
			MAY_DIE;
			if :: atomic { locked[e] == 0 -> locked[e] = me }; mine = e; break :: locked[e] != 0 -> e++ fi
		:: locked[e] != 0 -> e++
		fi
#else
		if
		:: atomic { locked[e] == 0 -> locked[e] = me };
			MAY_DIE;
			d_step { is_live = live[e]; g = generation[e] };
			if :: is_live -> d_step { assert(generation[e] == g || !live[e]); live[e] = 0 } :: else fi;
			MAY_DIE;
#ifndef NO_SWEEP /* a word of the generations before stands for the new one */
			if
			:: NAME(g + 1) == 0 ->
				d_step { if :: word_entry == e + 2 -> assert(holder == 0); word_entry = 1; word_name = 0 :: else fi };
				MAY_DIE
			:: else
			fi;
#endif
			d_step {
				generation[e] = g + 1; live[e] = 1; my_name = NAME(g + 1);
				/* A word names nobody who does not know of it. */
				assert(word_entry != e + 2 || word_name != my_name)
			};
			mine = e;
			break
		:: locked[e] != 0 -> e++
		fi
#endif
	od;
	MAY_DIE;
	do
	:: atomic {
			word_entry < 2 ->
			assert(holder == 0);
			assert(untold == (word_entry == 1));
			untold = 0; word_entry = mine + 2; word_name = my_name; holder = me
		};
		break
	:: d_step { word_entry >= 2 -> se = word_entry; sn = word_name };
		MAY_DIE;
		is_dead = 0;
		d_step { is_live = live[se - 2]; g = generation[se - 2] };
		if
		:: se == mine + 2 && sn == my_name -> skip
		:: else ->
			if
			:: !is_live || NAME(g) != sn -> is_dead = 1
			:: else ->
				MAY_DIE;
				if
				:: se - 2 != mine && locked[se - 2] == 0 ->
					is_dead = 1;
					MAY_DIE;
					d_step { if :: live[se - 2] && generation[se - 2] == g -> live[se - 2] = 0 :: else fi }
				:: else
				fi
			fi
		fi;
		if
		:: is_dead ->
			MAY_DIE;
			atomic {
				if
				:: word_entry == se && word_name == sn ->
					assert(holder == 0);
					untold = 0; word_entry = mine + 2; word_name = my_name; holder = me;
					goto holds
				:: else
				fi
			}
		:: else
		fi
	od;
holds:
	MAY_DIE;
	d_step {
		assert(word_entry == mine + 2 && word_name == my_name && holder == me);
		word_entry = 0; word_name = 0; holder = 0
	};
	MAY_DIE;
	live[mine] = 0;
	MAY_DIE;
	locked[mine] = 0;
	goto finish;
dead:
	skip;
	d_step { life++; mine = 0; my_name = 0; se = 0; sn = 0; g = 0; is_live = 0; is_dead = 0 };
	goto attach;
finish:
	finished++
}

init {
	atomic {
		byte i = 1;
		generation[0] = FIRST; generation[1] = FIRST;
		do :: i <= PROCESSES -> run Process(i); i++ :: else -> break od
	}
	finished == PROCESSES;
	/* A death that nobody was told of is told later. */
	assert(!untold || word_entry != 0)
}
