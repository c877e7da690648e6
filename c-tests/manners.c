/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * What calls leave alone in the process that makes them: errno, a pending cancellation, signals, threads, descriptors,
 * what is printed.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>

#include "child.h"
#include "segment.h"

struct scene {
	const char *name, *absent, *directory;
	lock_manager_t *manager, *watcher;
	void (*after)(const char *call, int32_t code);
};

/* Every function of the header, in a way that succeeds and in ways that fail, with `after` behind each call. */
#define CALL(call) \
	do { \
		int32_t code_ = (call); \
		scene->after(#call, code_); \
	} while (0)

static void make_every_call(const struct scene *scene)
{
	lock_manager_t *manager = scene->manager, *opened = NULL;
	lock_manager_cancel_t *cancel = NULL;
	lock_manager_shm_options_t bad_options = { .size = 1 };
	lock_manager_lock_info_t lock = { .size = sizeof lock };
	lock_manager_info_t storage = { .size = sizeof storage };
	uint32_t number = 0, ids[2];
	size_t count = 0;

	CALL(lock_manager_new_shm(scene->name, 32, NULL, &opened));
	CALL(lock_manager_new_shm(scene->absent, 0, NULL, &opened));
	CALL(lock_manager_new_shm(scene->absent, 32, &bad_options, &opened));
	CALL(lock_manager_new_shm("/no/such/directory/locks", 32, NULL, &opened));
	CALL(lock_manager_open_shm(scene->absent, 0, &opened));
	CALL(lock_manager_open_shm(scene->directory, 0, &opened));
	CALL(lock_manager_open_or_new_shm(scene->directory, 32, NULL, &opened));
	CALL(lock_manager_open_shm_read_only(scene->absent, &opened));
	CALL(lock_manager_remove_shm(scene->absent));
	CALL(lock_manager_remove_shm(scene->directory));
	CALL(lock_manager_new_shm(scene->absent, 32, NULL, &opened));
	CALL(lock_manager_close(opened));
	CALL(lock_manager_open_shm(scene->absent, 0, &opened));
	CALL(lock_manager_close(opened));
	CALL(lock_manager_open_or_new_shm(scene->absent, 0, NULL, &opened));
	CALL(lock_manager_close(opened));
	CALL(lock_manager_open_shm_read_only(scene->absent, &opened));
	CALL(lock_manager_close(opened));
	CALL(lock_manager_remove_shm(scene->absent));

	CALL(lock_manager_new_in_memory(0, &opened));
	CALL(lock_manager_new_in_memory(4, &opened));
	CALL(lock_manager_set_ownership(opened, LOCK_MANAGER_OWNED_BY_PROCESS));
	CALL(lock_manager_lock(opened, 3));
	CALL(lock_manager_timed_lock(opened, 3, 1000));
	CALL(lock_manager_unlock(opened, 3));
	CALL(lock_manager_close(opened));
	CALL(lock_manager_new_file("/no/such/directory/locks", &opened));
	CALL(lock_manager_open_file(file_of(scene->absent), &opened));
	CALL(lock_manager_new_file(file_of(scene->absent), &opened));
	CALL(lock_manager_allocate_lock(opened, &number));
	CALL(lock_manager_lock(opened, number));
	CALL(lock_manager_timed_lock(opened, number, 1000));
	CALL(lock_manager_locks_held(opened, ids, 2, &count));
	CALL(lock_manager_lock_info(opened, number, &lock));
	CALL(lock_manager_unlock(opened, number));
	CALL(lock_manager_unlock(opened, number));
	CALL(lock_manager_close(opened));
	CALL(lock_manager_open_or_new_file(file_of(scene->absent), &opened));
	CALL(lock_manager_close(opened));
	CALL(lock_manager_remove_file(file_of(scene->absent)));
	CALL(lock_manager_remove_file(file_of(scene->absent)));

	CALL(lock_manager_cancel_new(&cancel));
	CALL(lock_manager_cancel_trigger(cancel));
	CALL(lock_manager_cancellable_lock(manager, 4, UINT64_MAX, cancel));
	CALL(lock_manager_cancel_free(cancel));
	CALL(lock_manager_set_ownership(manager, LOCK_MANAGER_OWNED_BY_PROCESS));

	CALL(lock_manager_allocate_lock(manager, &number));
	CALL(lock_manager_allocate_and_retrieve_lock(manager, number));
	CALL(lock_manager_retrieve_lock(manager, 77));
	CALL(lock_manager_available_locks(manager, &number));
	CALL(lock_manager_num_locks(manager, &number));
	CALL(lock_manager_free_lock(manager, 31));
	CALL(lock_manager_free_all_locks(manager));
	CALL(lock_manager_free_all_locks(scene->watcher));
	CALL(lock_manager_grow(manager, 64));

	CALL(lock_manager_lock(manager, 1));
	CALL(lock_manager_lock(manager, 1));
	CALL(lock_manager_try_lock(manager, 1));
	CALL(lock_manager_timed_lock(manager, 1, 1000));
	CALL(lock_manager_locks_held(manager, ids, 2, &count));
	CALL(lock_manager_lock_info(manager, 1, &lock));
	CALL(lock_manager_lock_info(scene->watcher, 77, &lock));
	CALL(lock_manager_info(manager, &storage));
	CALL(lock_manager_repair_lock(manager, 1));
	CALL(lock_manager_close(manager));
	CALL(lock_manager_unlock(manager, 1));
	CALL(lock_manager_unlock(manager, 1));
	/* Lock 0 is held by another thread all the time. */
	CALL(lock_manager_try_lock(manager, 0));
	CALL(lock_manager_timed_lock(manager, 0, 0));
	CALL(lock_manager_timed_lock(manager, 0, 3000000));
	CALL(lock_manager_unlock(manager, 0));
	CALL(lock_manager_repair_lock(manager, 0));
	CALL((lock_manager_last_error(), 0));
	CALL((lock_manager_version(), 0));
}

static struct signpost held, let_go;

static void *hold_lock_0(void *manager)
{
	REQUIRE(lock_manager_lock(manager, 0) == 0);
	say(held);
	await(let_go);
	REQUIRE(lock_manager_unlock(manager, 0) == 0);
	return NULL;
}

static void with_a_scene(void (*play)(struct scene *))
{
	const char *name = new_name(), *directory = new_name();
	struct scene scene = { .name = name, .absent = new_name(), .directory = directory };
	pthread_t holder;
	scene.manager = new_segment(name, 32);
	scene.watcher = open_to_look(name);
	REQUIRE(mkdir(file_of(directory), 0700) == 0);
	held = new_signpost();
	let_go = new_signpost();
	REQUIRE(pthread_create(&holder, NULL, hold_lock_0, scene.manager) == 0);
	await(held);

	play(&scene);

	say(let_go);
	REQUIRE(pthread_join(holder, NULL) == 0);
	close_signpost(held);
	close_signpost(let_go);
	REQUIRE(rmdir(file_of(directory)) == 0);
	CHECK_INT(lock_manager_close(scene.watcher), 0);
	CHECK_INT(lock_manager_close(scene.manager), 0);
}

static int errno_before;
static int32_t codes[128], codes_without_errno[128];
static unsigned calls_made;

static void check_errno(const char *call, int32_t code)
{
	check_int(errno, errno_before, call, __FILE__, __LINE__);
	REQUIRE(calls_made < 128);
	codes[calls_made++] = code;
	errno = errno_before;
}

static void play_with_errno(struct scene *scene)
{
	static const int errnos[] = { 0, EINTR, ENOENT, 4711 };
	scene->after = check_errno;
	for (size_t i = 0; i < sizeof errnos / sizeof *errnos && !checks_failed; i++) {
		errno = errno_before = errnos[i];
		calls_made = 0;
		make_every_call(scene);
		errno = 0;
		if (i == 0)
			memcpy(codes_without_errno, codes, sizeof codes);
		for (unsigned call = 0; call < calls_made; call++)
			CHECK_INT(codes[call], codes_without_errno[call]);
	}
}

static void errno_is_neither_read_nor_set(void)
{
	with_a_scene(play_with_errno);
}

static int all_calls_were_made;

static void look_on(const char *call, int32_t code)
{
	(void)call;
	(void)code;
}

static void *make_every_call_while_cancelled(void *scene)
{
	pthread_cancel(pthread_self());
	make_every_call(scene);
	all_calls_were_made = 1;
	pthread_testcancel();
	return scene;
}

/* In a child, because a cancellation that does happen inside a call may end the process. */
static void play_while_cancelled(struct scene *scene)
{
	scene->after = look_on;
	pid_t child = fork_child();
	if (child == 0) {
		pthread_t thread;
		void *result = NULL;
		REQUIRE(pthread_create(&thread, NULL, make_every_call_while_cancelled, scene) == 0);
		REQUIRE(pthread_join(thread, &result) == 0);
		CHECK(all_calls_were_made);
		CHECK(result == PTHREAD_CANCELED);
		end_child();
	}
	check_child_ended_well(child);
}

static void no_call_is_a_cancellation_point(void)
{
	with_a_scene(play_while_cancelled);
}

static unsigned entries_of(const char *directory)
{
	unsigned count = 0;
	DIR *entries = opendir(directory);
	REQUIRE(entries != NULL);
	while (readdir(entries) != NULL)
		count++;
	closedir(entries);
	return count;
}

static void play_while_watched(struct scene *scene)
{
	scene->after = look_on;
	struct sigaction before[65], after;
	sigset_t mask_before, mask_after;
	for (int number = 1; number < 65; number++)
		if (sigaction(number, NULL, &before[number]) != 0)
			before[number].sa_handler = SIG_ERR;
	sigprocmask(SIG_SETMASK, NULL, &mask_before);
	unsigned threads = entries_of("/proc/self/task"), descriptors = entries_of("/proc/self/fd");

	make_every_call(scene);

	CHECK_INT(entries_of("/proc/self/task"), threads);
	CHECK_INT(entries_of("/proc/self/fd"), descriptors);
	for (int number = 1; number < 65; number++)
		if (before[number].sa_handler != SIG_ERR && sigaction(number, NULL, &after) == 0)
			CHECK(after.sa_handler == before[number].sa_handler);
	sigprocmask(SIG_SETMASK, NULL, &mask_after);
	for (int number = 1; number < 65; number++)
		CHECK_INT(sigismember(&mask_after, number), sigismember(&mask_before, number));
}

static void no_thread_signal_handler_or_descriptor_is_left_behind(void)
{
	with_a_scene(play_while_watched);
}

static void play_in_silence(struct scene *scene)
{
	scene->after = look_on;
	struct signpost output = new_signpost();
	pid_t child = fork_child();
	if (child == 0) {
		REQUIRE(dup2(output.write_end, STDOUT_FILENO) == STDOUT_FILENO);
		REQUIRE(dup2(output.write_end, STDERR_FILENO) == STDERR_FILENO);
		make_every_call(scene);
		_exit(0);
	}
	close(output.write_end);
	char byte;
	CHECK_INT(read(output.read_end, &byte, 1), 0);
	close(output.read_end);
	check_child_ended_well(child);
}

static void nothing_is_printed(void)
{
	with_a_scene(play_in_silence);
}

/* A descriptor that a program inherits by exec would keep the segment's file alive. */
static void every_descriptor_is_closed_by_exec(void)
{
	char open_before[256] = { 0 };
	for (int descriptor = 0; descriptor < 256; descriptor++)
		open_before[descriptor] = fcntl(descriptor, F_GETFD) >= 0;
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 32), *other = open_segment(name), *watcher = open_to_look(name);
	for (int descriptor = 0; descriptor < 256; descriptor++) {
		int flags = fcntl(descriptor, F_GETFD);
		if (flags >= 0 && !open_before[descriptor])
			CHECK_INT(flags & FD_CLOEXEC, FD_CLOEXEC);
	}
	CHECK_INT(lock_manager_close(watcher), 0);
	CHECK_INT(lock_manager_close(other), 0);
	CHECK_INT(lock_manager_close(manager), 0);
	for (int descriptor = 0; descriptor < 256; descriptor++)
		CHECK_INT(fcntl(descriptor, F_GETFD) >= 0, open_before[descriptor]);
}

int main(void)
{
	RUN_TEST(errno_is_neither_read_nor_set);
	RUN_TEST(no_call_is_a_cancellation_point);
	RUN_TEST(no_thread_signal_handler_or_descriptor_is_left_behind);
	RUN_TEST(nothing_is_printed);
	RUN_TEST(every_descriptor_is_closed_by_exec);
	return end_of_tests();
}
