/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The library loaded at run time by a program that is not linked with it, whose threads outlive each dlclose().
 * The argument is the path of the shared library.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>

#include <lock_manager.h>

#include "names.h"

enum { ROUNDS = 300, THREADS = 3, SECTIONS = 50 };

static const char *library_path;

static struct {
	__typeof__(lock_manager_open_or_new_shm) *open_or_new_shm;
	__typeof__(lock_manager_lock) *lock;
	__typeof__(lock_manager_unlock) *unlock;
	__typeof__(lock_manager_last_error) *last_error;
	__typeof__(lock_manager_close) *close;
} library;

/* ISO C has no conversion from an object's pointer to a function's; POSIX promises that the bytes are the same. */
static void find(void *handle, const char *symbol, void *function)
{
	void *address = dlsym(handle, symbol);
	REQUIRE(address != NULL);
	memcpy(function, &address, sizeof address);
}

static void *load(void)
{
	void *handle = dlopen(library_path, RTLD_NOW | RTLD_LOCAL);
	if (handle == NULL)
		fprintf(stderr, "%s\n", dlerror());
	REQUIRE(handle != NULL);
	find(handle, "lock_manager_open_or_new_shm", &library.open_or_new_shm);
	find(handle, "lock_manager_lock", &library.lock);
	find(handle, "lock_manager_unlock", &library.unlock);
	find(handle, "lock_manager_last_error", &library.last_error);
	find(handle, "lock_manager_close", &library.close);
	return handle;
}

static unsigned open_descriptors(void)
{
	unsigned count = 0;
	DIR *entries = opendir("/proc/self/fd");
	REQUIRE(entries != NULL);
	while (readdir(entries) != NULL)
		count++;
	closedir(entries);
	return count;
}

static lock_manager_t *manager;
static unsigned sections;
static pthread_barrier_t used, unloaded;

static void *use_before_and_after_dlclose(void *nothing)
{
	for (int i = 0; i < SECTIONS; i++) {
		CHECK_INT(library.lock(manager, 7), 0);
		sections++;
		CHECK_INT(library.unlock(manager, 7), 0);
	}
	/* The last error is memory of this thread, given back by a destructor of the library's. */
	CHECK_INT(library.unlock(manager, 7), -EPERM);
	CHECK(*library.last_error() != '\0');
	pthread_barrier_wait(&used);
	pthread_barrier_wait(&unloaded);
	CHECK(*library.last_error() != '\0');
	CHECK_INT(library.lock(manager, 7), 0);
	CHECK_INT(library.unlock(manager, 7), 0);
	return nothing;
}

static void play_a_round(const char *name)
{
	pthread_t threads[THREADS];
	void *handle = load();
	sections = 0;
	CHECK_INT(library.open_or_new_shm(name, 32, NULL, &manager), 0);
	for (int i = 0; i < THREADS; i++)
		REQUIRE(pthread_create(&threads[i], NULL, use_before_and_after_dlclose, NULL) == 0);
	pthread_barrier_wait(&used);
	CHECK_INT(dlclose(handle), 0);
	pthread_barrier_wait(&unloaded);
	for (int i = 0; i < THREADS; i++)
		REQUIRE(pthread_join(threads[i], NULL) == 0);
	CHECK_INT(sections, THREADS * SECTIONS);
	CHECK_INT(library.close(manager), 0);
}

static void the_library_comes_and_goes_while_threads_use_it(void)
{
	const char *name = new_name();
	REQUIRE(pthread_barrier_init(&used, NULL, THREADS + 1) == 0);
	REQUIRE(pthread_barrier_init(&unloaded, NULL, THREADS + 1) == 0);
	play_a_round(name);
	unsigned descriptors = open_descriptors();
	for (int round = 1; round < ROUNDS; round++)
		play_a_round(name);
	CHECK_INT(open_descriptors(), descriptors);
}

static void the_library_stays_mapped_after_dlclose(void)
{
	CHECK_INT(dlclose(load()), 0);
	void *still_there = dlopen(library_path, RTLD_NOW | RTLD_NOLOAD);
	CHECK(still_there != NULL);
	if (still_there != NULL)
		CHECK_INT(dlclose(still_there), 0);
}

static void its_functions_stay_its_own_if_it_is_loaded_locally(void)
{
	void *handle = load();
	CHECK(dlsym(RTLD_DEFAULT, "lock_manager_lock") == NULL);
	CHECK(dlsym(handle, "lock_manager_lock") != NULL);
	CHECK_INT(dlclose(handle), 0);
}

int main(int argc, char **argv)
{
	REQUIRE(argc == 2);
	library_path = argv[1];
	RUN_TEST(the_library_stays_mapped_after_dlclose);
	RUN_TEST(its_functions_stay_its_own_if_it_is_loaded_locally);
	RUN_TEST(the_library_comes_and_goes_while_threads_use_it);
	return end_of_tests();
}
