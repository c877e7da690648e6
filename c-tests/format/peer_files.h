// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Of peer.c: locks of a directory. The segment is its file .lock_manager; whoever has a lock takes the record lock on the
 * id's file as well, if there is one, a reader for reading, and gives the lock back where that is not to be had.
 */
#ifndef FORMAT_PEER_FILES_H
#define FORMAT_PEER_FILES_H

#include "peer_locks.h"

enum { FILES = 64 };

/* Of a lock that is held: its file, plus one. A writer that has the word uses it, and of readers all. */
static struct {
	int file_and_one, readers;
} files[FILES];
static pthread_mutex_t files_guard = PTHREAD_MUTEX_INITIALIZER;

static bool is_directory(void)
{
	const char *name = strrchr(segment.path, '/');
	return name != NULL && strcmp(name, "/.lock_manager") == 0;
}

static bool set_record_lock(int file, short type)
{
	struct flock record = { .l_type = type, .l_whence = SEEK_SET };
	return fcntl(file, F_SETLK, &record) == 0;
}

/* 1: held, or there is none; 0: somebody else has it. */
static int take_closed_file(uint32_t lock, enum kind kind)
{
	char path[512];
	snprintf(path, sizeof path, "%.*s/%" PRIu32, (int)(strrchr(segment.path, '/') - segment.path), segment.path, lock);
	int file = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (file < 0)
		return errno == ENOENT ? 1 : -errno;
	if (set_record_lock(file, kind == SHARED ? F_RDLCK : F_WRLCK)) {
		files[lock].file_and_one = file + 1;
		return 1;
	}
	int error = errno;
	/* This process has no lock on it that this would drop: nobody else of it has the lock. */
	close(file);
	return error == EAGAIN || error == EACCES ? 0 : -error;
}

static int take_file(uint32_t lock, enum kind kind)
{
	pthread_mutex_lock(&files_guard);
	int taken = kind == SHARED && files[lock].readers > 0 ? 1 : take_closed_file(lock, kind);
	files[lock].readers += kind == SHARED && taken == 1;
	pthread_mutex_unlock(&files_guard);
	return taken;
}

static void give_file(uint32_t lock)
{
	pthread_mutex_lock(&files_guard);
	if (files[lock].readers > 0)
		files[lock].readers--;
	if (files[lock].readers == 0 && files[lock].file_and_one != 0) {
		/* Gives the record lock back. */
		close(files[lock].file_and_one - 1);
		files[lock].file_and_one = 0;
	}
	pthread_mutex_unlock(&files_guard);
}

static bool has_file(uint32_t lock)
{
	return is_directory() && lock < FILES;
}

static int take(uint32_t lock, enum kind kind, uint64_t deadline)
{
	int result = lock_until(lock, kind, deadline);
	if (result < 0 || !has_file(lock))
		return result;
	for (;;) {
		int taken = take_file(lock, kind);
		if (taken == 1)
			return result;
		if (taken < 0 || now_ns() >= deadline) {
			if (kind == SHARED)
				unlock_shared(lock);
			else
				unlock_word(lock, result == TOLD_OF_DEATH);
			return taken < 0 ? taken : deadline == 0 ? -EBUSY : -ETIMEDOUT;
		}
		usleep(1000);
	}
}

static int give(uint32_t lock)
{
	if (lock < num_locks() && has_file(lock) && (LOAD(slot(lock)) & OWNER) == holder())
		give_file(lock);
	return unlock(lock);
}

static int give_shared(uint32_t lock)
{
	if (lock < num_locks() && has_file(lock) && (reads_already(lock) || (segment.by_process && files[lock].readers > 0)))
		give_file(lock);
	return unlock_shared(lock);
}

/* The record lock first, so that other readers find it so. */
static int become_reader(uint32_t lock)
{
	if (lock >= num_locks() || !has_file(lock) || (LOAD(slot(lock)) & OWNER) != holder())
		return downgrade(lock);
	int file = files[lock].file_and_one - 1;
	if (file >= 0 && !set_record_lock(file, F_RDLCK))
		return -errno;
	files[lock].readers = 1;
	int result = downgrade(lock);
	if (result < 0) {
		files[lock].readers = 0;
		if (file >= 0)
			set_record_lock(file, F_WRLCK);
	}
	return result;
}

#endif
