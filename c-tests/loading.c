/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * A program that was not linked with the library loads it and uses a lock, in its first thread and in one that was there
 * before: the library's thread-local object must be there for both.
 *
 *     loading LIBRARY SEGMENT
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <lock_manager.h>

static void *library;
static lock_manager_t *manager;
static pthread_barrier_t loaded;

static void *symbol(const char *name)
{
	void *found = dlsym(library, name);
	if (found == NULL) {
		fprintf(stderr, "loading: %s\n", dlerror());
		exit(EXIT_FAILURE);
	}
	return found;
}

static int use(uint32_t id)
{
	int32_t (*lock)(lock_manager_t *, uint32_t), (*unlock)(lock_manager_t *, uint32_t);
	*(void **)&lock = symbol("lock_manager_lock");
	*(void **)&unlock = symbol("lock_manager_unlock");
	return lock(manager, id) != 0 || unlock(manager, id) != 0 || lock(manager, id) != 0 || unlock(manager, id) != 0;
}

static void *from_before(void *unused)
{
	(void)unused;
	pthread_barrier_wait(&loaded);
	return use(1) == 0 ? &loaded : NULL;
}

int main(int argc, char **argv)
{
	pthread_t thread;
	void *result;
	int32_t (*make)(const char *, uint32_t, const lock_manager_shm_options_t *, lock_manager_t **);
	int32_t (*discard)(const char *);

	if (argc < 3)
		return 2;
	pthread_barrier_init(&loaded, NULL, 2);
	if (pthread_create(&thread, NULL, from_before, NULL) != 0)
		return EXIT_FAILURE;
	library = dlopen(argv[1], RTLD_NOW);
	if (library == NULL) {
		fprintf(stderr, "loading: %s\n", dlerror());
		return EXIT_FAILURE;
	}
	*(void **)&make = symbol("lock_manager_new_shm");
	*(void **)&discard = symbol("lock_manager_remove_shm");
	if (make(argv[2], 64, NULL, &manager) != 0)
		return EXIT_FAILURE;
	pthread_barrier_wait(&loaded);
	const int failed = use(0);
	pthread_join(thread, &result);
	return failed || result == NULL || discard(argv[2]) != 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
