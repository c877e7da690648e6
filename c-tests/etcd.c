/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The locks in etcd, as C programs get them: installed, through pkg-config. Called with an address, it goes through the life of
 * a lock there; without one, it tests what needs no server.
 */
#include <lock_manager_etcd.h>

#include <poll.h>
#include <sys/wait.h>

#include "check.h"

#define REFUSED(call, errno_of_it, words) \
	do { \
		CHECK_INT(call, -(errno_of_it)); \
		if (strstr(lock_manager_last_error(), words) == NULL) \
			CHECK_TEXT(lock_manager_last_error(), words); \
	} while (0)

enum { NUM_LOCKS = 8 };
static const char *address;
static lock_manager_t *manager;

static void null_is_refused_and_nothing_is_written(void)
{
	lock_manager_t *out = NULL;
	size_t count = 7;
	char json[1] = { 'x' };
	REFUSED(lock_manager_open_etcd(NULL, 1, NULL, &out), EINVAL, "NULL");
	REFUSED(lock_manager_open_etcd("etcd://127.0.0.1:1/a", 1, NULL, NULL), EINVAL, "NULL");
	REFUSED(lock_manager_remove_etcd(NULL, NULL), EINVAL, "NULL");
	REFUSED(lock_manager_etcd_parties(NULL, 0, NULL, 0, &count), EINVAL, "NULL");
	REFUSED(lock_manager_etcd_guard(NULL, 0, json, sizeof json, &count), EINVAL, "NULL");
	CHECK(out == NULL && count == 7 && json[0] == 'x');
}

static void what_is_no_address_and_no_options_are_refused(void)
{
	lock_manager_t *out = NULL;
	lock_manager_etcd_options_t options = { .size = sizeof options - 1 };
	REFUSED(lock_manager_open_etcd("http://127.0.0.1:1/a", 1, NULL, &out), EINVAL, "etcd://");
	REFUSED(lock_manager_open_etcd("etcd://127.0.0.1:1/a", 1, &options, &out), EINVAL, "size");
	options = (lock_manager_etcd_options_t){ .size = sizeof options, .ttl_seconds = 1 };
	REFUSED(lock_manager_open_etcd("etcd://127.0.0.1:1/a", 1, &options, &out), EINVAL, "TTL");
	CHECK(out == NULL);
}

static void a_server_that_is_not_there_is_named(void)
{
	lock_manager_t *out = NULL;
	lock_manager_etcd_options_t options = { .size = sizeof options, .patience_seconds = 1 };
	REFUSED(lock_manager_open_etcd("etcd://127.0.0.1:1/a", 1, &options, &out), ECONNREFUSED, "127.0.0.1:1");
	CHECK(out == NULL);
}

static void a_manager_of_one_host_is_none_of_these(void)
{
	lock_manager_t *native = NULL;
	size_t count = 0;
	REQUIRE(lock_manager_new_in_memory(1, &native) == 0);
	CHECK(lock_manager_etcd_parties(native, 0, NULL, 0, &count) < 0);
	CHECK(lock_manager_etcd_guard(native, 0, NULL, 0, &count) < 0);
	CHECK_INT(lock_manager_close(native), 0);
}

static void the_holder_is_listed_with_its_host_and_its_token(void)
{
	lock_manager_etcd_party_t party = { .size = sizeof party };
	size_t count = 0;
	uint64_t token = 0;
	REQUIRE(lock_manager_lock(manager, 3) == 0);
	CHECK_INT(lock_manager_fencing_token(manager, 3, &token), 0);
	CHECK_INT(lock_manager_etcd_parties(manager, 3, &party, 1, &count), 0);
	CHECK_INT(count, 1);
	CHECK(party.holds == 1 && party.here == 1 && party.pid == getpid() && party.token == token && token > 0);
	CHECK_TEXT(party.host, "c-tests");
	CHECK_TEXT(party.command, "etcd");
	REFUSED(lock_manager_etcd_parties(manager, NUM_LOCKS, &party, 1, &count), EINVAL, "no lock 8");
	party.size--;
	REFUSED(lock_manager_etcd_parties(manager, 3, &party, 1, &count), EINVAL, "size");
	CHECK_INT(lock_manager_unlock(manager, 3), 0);
	CHECK_INT(lock_manager_etcd_parties(manager, 3, NULL, 0, &count), 0);
	CHECK_INT(count, 0);
}

static void a_guard_is_a_comparison_that_its_room_is_asked_for(void)
{
	char json[512] = "";
	size_t length = 0;
	REFUSED(lock_manager_etcd_guard(manager, 3, json, sizeof json, &length), EPERM, "3");
	REQUIRE(lock_manager_lock(manager, 3) == 0);
	REFUSED(lock_manager_etcd_guard(manager, 3, NULL, 0, &length), ENOBUFS, "bytes");
	CHECK(length > 0 && length < sizeof json);
	CHECK_INT(lock_manager_etcd_guard(manager, 3, json, length + 1, &length), 0);
	CHECK_INT(strlen(json), length);
	CHECK(json[0] == '{' && strstr(json, "create_revision") != NULL);
	CHECK_INT(lock_manager_unlock(manager, 3), 0);
}

static void the_descriptor_of_losses_is_silent(void)
{
	struct pollfd polled = { .fd = -1, .events = POLLIN };
	CHECK_INT(lock_manager_lost_fd(manager, &polled.fd), 0);
	REQUIRE(lock_manager_lock(manager, 3) == 0);
	CHECK_INT(poll(&polled, 1, 0), 0);
	CHECK_INT(lock_manager_unlock(manager, 3), 0);
}

static void a_child_holds_nothing_and_locks_anew(void)
{
	pid_t child = fork();
	REQUIRE(child >= 0);
	if (child == 0)
		_exit(lock_manager_lock(manager, 4) == 0 && lock_manager_unlock(manager, 4) == 0 ? 0 : 1);
	int status = -1;
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK_INT(status, 0);
}

static void the_locks_are_removed(void)
{
	lock_manager_etcd_options_t options = { .size = sizeof options, .host = "c-tests" };
	CHECK_INT(lock_manager_remove_etcd(address, &options), 0);
	CHECK_INT(lock_manager_lock(manager, 3), -ESTALE);
	CHECK_INT(lock_manager_close(manager), 0);
	REFUSED(lock_manager_remove_etcd(address, &options), ENOENT, address);
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		RUN_TEST(null_is_refused_and_nothing_is_written);
		RUN_TEST(what_is_no_address_and_no_options_are_refused);
		RUN_TEST(a_server_that_is_not_there_is_named);
		RUN_TEST(a_manager_of_one_host_is_none_of_these);
		return end_of_tests();
	}
	address = argv[1];
	lock_manager_etcd_options_t options = { .size = sizeof options, .host = "c-tests", .patience_seconds = 20 };
	REQUIRE(lock_manager_open_etcd(address, NUM_LOCKS, &options, &manager) == 0);
	RUN_TEST(the_holder_is_listed_with_its_host_and_its_token);
	RUN_TEST(a_guard_is_a_comparison_that_its_room_is_asked_for);
	RUN_TEST(the_descriptor_of_losses_is_silent);
	RUN_TEST(a_child_holds_nothing_and_locks_anew);
	RUN_TEST(the_locks_are_removed);
	return end_of_tests();
}
