/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Signals that come in the midst of calls, one behind the other.
 */
#ifndef SIGNALS_H
#define SIGNALS_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

/* Who sends signals is to end. */
static atomic_int stop;
/* How many were handled: their handler counts. */
static atomic_long handled;
static pthread_t target;

/* A thread that sends SIGUSR1 to `target`, each time that the last one was handled. */
static inline void *send_signals(void *unused)
{
	long last = -1;
	for (unsigned spin = 0; !atomic_load(&stop); spin++) {
		long now = atomic_load(&handled);
		if (now == last)
			continue;
		last = now;
		for (volatile unsigned pause = 0; pause < spin % 200; pause++)
			;
		pthread_kill(target, SIGUSR1);
	}
	return unused;
}

#endif
