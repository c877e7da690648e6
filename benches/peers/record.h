/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A record lock on the whole file; what includes it has defined COMMAND. */
#include "file.h"

static int set(void *lock, short type)
{
	struct flock record = {.l_type = type, .l_whence = SEEK_SET};

	return fcntl(descriptor(lock), COMMAND, &record);
}

int peer_lock(void *lock, uint32_t id)
{
	(void)id;
	return set(lock, F_WRLCK);
}

int peer_unlock(void *lock, uint32_t id)
{
	(void)id;
	return set(lock, F_UNLCK);
}
