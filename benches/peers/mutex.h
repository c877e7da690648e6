/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A mutex of the libc that processes share; what includes it has defined ROBUSTNESS. */
#include "peer.h"

#include <pthread.h>
#include <time.h>

void peer_make(void *memory, const char *path)
{
	pthread_mutexattr_t attributes;

	(void)path;
	pthread_mutexattr_init(&attributes);
	pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attributes, ROBUSTNESS);
	pthread_mutex_init(memory, &attributes);
}

void *peer_attach(void *memory, const char *path)
{
	(void)path;
	return memory;
}

int peer_lock(void *mutex, uint32_t id)
{
	(void)id;
	return pthread_mutex_lock(mutex);
}

int peer_unlock(void *mutex, uint32_t id)
{
	(void)id;
	return pthread_mutex_unlock(mutex);
}

int peer_timed_lock(void *mutex, uint32_t id, uint64_t timeout_ns)
{
	struct timespec until;

	(void)id;
	clock_gettime(CLOCK_REALTIME, &until);
	timeout_ns += (uint64_t)until.tv_nsec;
	until.tv_sec += (time_t)(timeout_ns / 1000000000);
	until.tv_nsec = (long)(timeout_ns % 1000000000);
	return pthread_mutex_timedlock(mutex, &until);
}
