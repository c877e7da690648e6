/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The libc's read-write lock, shared by processes. It cannot be robust. Readers pass a writer that waits, unless
 * WRITERS_FIRST is defined. */
#define _GNU_SOURCE
#include "peer.h"

#include <pthread.h>

void peer_make(void *memory, const char *path)
{
	pthread_rwlockattr_t attributes;

	(void)path;
	pthread_rwlockattr_init(&attributes);
	pthread_rwlockattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
#ifdef WRITERS_FIRST
	pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
#endif
	pthread_rwlock_init(memory, &attributes);
}

void *peer_attach(void *memory, const char *path)
{
	(void)path;
	return memory;
}

int peer_lock(void *lock, uint32_t id)
{
	(void)id;
	return pthread_rwlock_wrlock(lock);
}

int peer_unlock(void *lock, uint32_t id)
{
	(void)id;
	return pthread_rwlock_unlock(lock);
}

int peer_lock_shared(void *lock, uint32_t id)
{
	(void)id;
	return pthread_rwlock_rdlock(lock);
}

int peer_unlock_shared(void *lock, uint32_t id) { return peer_unlock(lock, id); }
