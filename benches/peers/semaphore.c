/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A POSIX semaphore of 1, shared by processes. It does not know who has it. */
#include "peer.h"

#include <semaphore.h>

void peer_make(void *memory, const char *path)
{
	(void)path;
	sem_init(memory, 1, 1);
}

void *peer_attach(void *memory, const char *path)
{
	(void)path;
	return memory;
}

int peer_lock(void *semaphore, uint32_t id)
{
	(void)id;
	return sem_wait(semaphore);
}

int peer_unlock(void *semaphore, uint32_t id)
{
	(void)id;
	return sem_post(semaphore);
}
