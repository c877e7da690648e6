/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * A program that loads a plugin, which brings the library along, shared or within itself. The argument is the path of
 * the plugin.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>

#include "names.h"
#include "plugin.h"

enum { ROUNDS = 50 };

static const char *plugin_path;
static __typeof__(enter_and_leave) *plugin_function;
static pthread_barrier_t used, unloaded;

static void *use_the_plugin_and_outlive_it(void *name)
{
	CHECK_INT(plugin_function(name), 0);
	pthread_barrier_wait(&used);
	pthread_barrier_wait(&unloaded);
	return NULL;
}

static void a_plugin_comes_and_goes_before_the_thread_that_used_it(void)
{
	char name[NAME_SIZE];
	snprintf(name, sizeof name, "%s", new_name());
	REQUIRE(pthread_barrier_init(&used, NULL, 2) == 0);
	REQUIRE(pthread_barrier_init(&unloaded, NULL, 2) == 0);
	for (int round = 0; round < ROUNDS; round++) {
		pthread_t thread;
		void *plugin = dlopen(plugin_path, RTLD_NOW | RTLD_LOCAL);
		if (plugin == NULL)
			fprintf(stderr, "%s\n", dlerror());
		REQUIRE(plugin != NULL);
		void *address = dlsym(plugin, "enter_and_leave");
		REQUIRE(address != NULL);
		memcpy(&plugin_function, &address, sizeof address);
		REQUIRE(pthread_create(&thread, NULL, use_the_plugin_and_outlive_it, name) == 0);
		pthread_barrier_wait(&used);
		CHECK_INT(plugin_function(name), 0);
		CHECK_INT(dlclose(plugin), 0);
		pthread_barrier_wait(&unloaded);
		REQUIRE(pthread_join(thread, NULL) == 0);
	}
}

static void the_program_itself_sees_nothing_of_the_library(void)
{
	void *plugin = dlopen(plugin_path, RTLD_NOW | RTLD_LOCAL);
	REQUIRE(plugin != NULL);
	CHECK(dlsym(RTLD_DEFAULT, "lock_manager_lock") == NULL);
	CHECK_INT(dlclose(plugin), 0);
}

int main(int argc, char **argv)
{
	REQUIRE(argc == 2);
	plugin_path = argv[1];
	RUN_TEST(a_plugin_comes_and_goes_before_the_thread_that_used_it);
	RUN_TEST(the_program_itself_sees_nothing_of_the_library);
	return end_of_tests();
}
