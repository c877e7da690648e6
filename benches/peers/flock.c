/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* flock(2). */
#include "file.h"

#include <sys/file.h>

int peer_lock(void *lock, uint32_t id)
{
	(void)id;
	return flock(descriptor(lock), LOCK_EX);
}

int peer_unlock(void *lock, uint32_t id)
{
	(void)id;
	return flock(descriptor(lock), LOCK_UN);
}
