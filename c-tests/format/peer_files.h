// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Of peer.c: locks of a directory. The segment is its file .lock_manager; whoever has a lock's word takes the record lock on
 * the id's file as well, if there is one, as libpod does, and gives the word back where that is not to be had.
 */
#ifndef FORMAT_PEER_FILES_H
#define FORMAT_PEER_FILES_H

#include "peer_locks.h"

enum { FILES = 64 };

/* Of a lock that is held: its file, plus one. Who has the word uses it. */
static int file_held[FILES];

static bool is_directory(void)
{
	const char *name = strrchr(segment.path, '/');
	return name != NULL && strcmp(name, "/.lock_manager") == 0;
}

/* 1: held, or there is none; 0: somebody else has it. */
static int take_file(uint32_t lock)
{
	char path[512];
	struct flock record = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	snprintf(path, sizeof path, "%.*s/%" PRIu32, (int)(strrchr(segment.path, '/') - segment.path), segment.path, lock);
	int file = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (file < 0)
		return errno == ENOENT ? 1 : -errno;
	if (fcntl(file, F_SETLK, &record) == 0) {
		file_held[lock] = file + 1;
		return 1;
	}
	int error = errno;
	/* This process has no lock on it that this would drop: it has the word. */
	close(file);
	return error == EAGAIN || error == EACCES ? 0 : -error;
}

static int take(uint32_t lock, uint64_t deadline)
{
	int result = lock_until(lock, deadline);
	if (result < 0 || !is_directory() || lock >= FILES)
		return result;
	for (;;) {
		int taken = take_file(lock);
		if (taken == 1)
			return result;
		if (taken < 0 || now_ns() >= deadline) {
			unlock_word(slot(lock), result == OWNER_DIED);
			return taken < 0 ? taken : deadline == 0 ? -EBUSY : -ETIMEDOUT;
		}
		usleep(1000);
	}
}

static int give(uint32_t lock)
{
	if (lock >= num_locks() || (LOAD(slot(lock)) & OWNER) != own_owner())
		return unlock(lock);
	if (lock < FILES && file_held[lock] != 0) {
		/* Gives the record lock back. */
		close(file_held[lock] - 1);
		file_held[lock] = 0;
	}
	return unlock(lock);
}

#endif
