/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Why a lock word names its holder whole. With -DHALF the word names a process, and the thread stands beside it: between
 * the swap and the store the two name somebody else. Thread 1 of process 1 dies holding, thread 2 of process 1 takes the
 * lock, two others judge what they read.
 */
byte word, thread; bit first_is_dead; byte inside;

#ifdef HALF
#define TAKE(process, number) atomic { word == 0 -> word = process }; thread = number
#define LOOK word_seen = word; thread_seen = thread
#define SAME (word == word_seen)
#define GIVE_BACK thread = 0; word = 0
#else
#define TAKE(process, number) atomic { word == 0 -> word = process; thread = number }
#define LOOK d_step { word_seen = word; thread_seen = thread }
#define SAME (word == word_seen && thread == thread_seen)
#define GIVE_BACK d_step { thread = 0; word = 0 }
#endif

proctype First() { TAKE(1, 1); first_is_dead = 1 }

proctype Second() {
	TAKE(1, 2);
	d_step { inside++; assert(inside == 1) };
	inside--;
	GIVE_BACK
}

proctype Judge(byte process) {
	byte word_seen, thread_seen;
	bit ok;
	LOOK;
	if
	:: word_seen == 1 && thread_seen == 1 && first_is_dead ->
		d_step { ok = 0; if :: SAME -> word = process; thread = 3; ok = 1 :: else fi };
		if
		:: ok ->
			d_step { inside++; assert(inside == 1) };
			inside--;
			GIVE_BACK
		:: else
		fi
	:: else
	fi
}

/* The lock is free again at last, so that nobody waits for ever. */
proctype Repair() {
	byte word_seen, thread_seen;
	timeout;
	d_step { if :: word == 1 && thread == 1 && first_is_dead -> word = 0; thread = 0 :: else fi }
}

init { atomic { run First(); run Second(); run Judge(2); run Judge(3); run Repair() } }
