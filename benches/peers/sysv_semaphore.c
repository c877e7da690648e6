/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A System V semaphore of 1 whose every change the kernel takes back when the process ends. */
#include "peer.h"

#include <string.h>
#include <sys/ipc.h>
#include <sys/sem.h>

/* The memory holds the semaphore's number plus one. */
void peer_make(void *memory, const char *path)
{
	int set = semget(IPC_PRIVATE, 1, IPC_CREAT | 0600);
	struct sembuf up = {.sem_op = 1};

	(void)path;
	semop(set, &up, 1);
	*(int *)memory = set + 1;
}

void *peer_attach(void *memory, const char *path)
{
	(void)path;
	return memory;
}

static int change(const int *set, short by)
{
	struct sembuf change = {.sem_op = by, .sem_flg = SEM_UNDO};

	return semop(*set - 1, &change, 1);
}

int peer_lock(void *set, uint32_t id)
{
	(void)id;
	return change(set, -1);
}

int peer_unlock(void *set, uint32_t id)
{
	(void)id;
	return change(set, 1);
}

/* The kernel keeps such semaphores until they are removed. */
void peer_remove(void *memory) { semctl(*(int *)memory - 1, 0, IPC_RMID); }
