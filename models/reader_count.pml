/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Why readers are not counted. Two readers count themselves in, and leave a record each that names them; one dies between
 * any two steps. A writer mends: for each record whose reader is dead it takes one off the count. Whichever of the two is
 * written first, a death between them leaves a count that names nobody, or a name that was not counted.
 *
 *     RECORD_FIRST        the record first, then the count
 */
#define READERS 2
byte readers; bit record[READERS]; bit dead[READERS];
byte deaths, inside;
bit written;

#define MAY_DIE if :: true :: deaths < 1 -> d_step { deaths++; dead[me] = 1; if :: is_in -> inside-- :: else fi }; goto gone fi

proctype Reader(byte me) {
	bit is_in;
#ifdef RECORD_FIRST
	record[me] = 1;
	MAY_DIE;
	atomic { !written -> readers++; inside++; is_in = 1 };
	MAY_DIE;
	d_step { readers--; inside--; is_in = 0 };
	MAY_DIE;
	record[me] = 0;
#else
	atomic { !written -> readers++; inside++; is_in = 1 };
	MAY_DIE;
	record[me] = 1;
	MAY_DIE;
	record[me] = 0;
	MAY_DIE;
	d_step { readers--; inside--; is_in = 0 };
#endif
gone:
	skip
}

proctype Writer() {
	byte i;
	do
	:: atomic { readers == 0 -> written = 1 }; assert(inside == 0); written = 0; break
	:: i < READERS -> if :: record[i] && dead[i] -> d_step { assert(readers > 0); readers--; record[i] = 0 } :: else fi; i++
	:: i == READERS && readers != 0 && ((record[0] && dead[0]) || (record[1] && dead[1])) -> i = 0
	od
}

init { atomic { run Reader(0); run Reader(1); run Writer() } }
