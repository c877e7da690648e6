/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * What a path may be, what may lie there, and what each is told: the code, a sentence that names it, nothing written.
 */
#define _GNU_SOURCE
#include <sys/socket.h>
#include <sys/un.h>

#include "segment.h"

static int places_a_manager_never_has;
#define UNTOUCHED ((lock_manager_t *)(void *)&places_a_manager_never_has)

/* What every function that takes a path says of one. */
struct verdict {
	int32_t new_shm, open_shm, open_or_new_shm, open_shm_read_only, remove_shm;
};

static void check_path(const char *path, const char *names, struct verdict expected)
{
	lock_manager_t *out = UNTOUCHED;
	CHECK_FAILURE(lock_manager_new_shm(path, 32, NULL, &out), expected.new_shm, names);
	CHECK_FAILURE(lock_manager_open_shm(path, 32, &out), expected.open_shm, names);
	CHECK_FAILURE(lock_manager_open_shm(path, 0, &out), expected.open_shm, names);
	CHECK_FAILURE(lock_manager_open_or_new_shm(path, 32, NULL, &out), expected.open_or_new_shm, names);
	CHECK_FAILURE(lock_manager_open_shm_read_only(path, &out), expected.open_shm_read_only, names);
	CHECK_FAILURE(lock_manager_remove_shm(path), expected.remove_shm, names);
	CHECK(out == UNTOUCHED);
}

/* The same code from all. */
static void check_path_is(const char *path, const char *names, int32_t code)
{
	check_path(path, names, (struct verdict){ code, code, code, code, code });
}

/* Something lies there that is no segment, and it still lies there afterwards. */
static const struct verdict NOT_A_SEGMENT = { -EEXIST, -EPROTO, -EPROTO, -EPROTO, -EPROTO };

static void what_can_be_no_name_is_refused(void)
{
	static const char *const bad[] = { "", "locks", "./locks", "dev/shm/locks", "/", "//", "/.", "/..",
					   "/dev/shm/", "/dev/shm/.", "/dev/shm/..", "/dev/shm/locks/" };
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
		check_path_is(bad[i], bad[i], -EINVAL);
}

static void a_name_of_more_than_255_bytes_is_refused(void)
{
	char name[300] = "/", file[300] = "/dev/shm/";
	memset(name + 1, 'x', 256);
	memset(file + strlen(file), 'x', 256);
	check_path_is(name, name, -EINVAL);
	check_path_is(file, file, -EINVAL);
}

static void a_path_longer_than_the_system_allows_is_refused(void)
{
	enum { SIZE = 8192 };
	char *path = malloc(SIZE);
	REQUIRE(path != NULL);
	for (int i = 0; i < SIZE; i++)
		path[i] = i % 100 ? 'x' : '/';
	path[SIZE - 1] = '\0';
	check_path_is(path, "/xxx", -ENAMETOOLONG);
	free(path);
}

static void a_posix_name_and_the_path_of_its_file_mean_the_same_segment(void)
{
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 32), *same = NULL;
	CHECK_INT(lock_manager_open_shm(file_of(name), 32, &same), 0);
	CHECK_INT(lock_manager_lock(manager, 4), 0);
	CHECK_INT(lock_manager_try_lock(same, 4), -EBUSY);
	CHECK_INT(lock_manager_unlock(manager, 4), 0);
	CHECK_INT(lock_manager_close(same), 0);
	CHECK_INT(lock_manager_remove_shm(file_of(name)), 0);
	CHECK_FAILURE(lock_manager_remove_shm(name), -ENOENT, name);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void a_second_creation_is_refused_and_the_first_goes_on(void)
{
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 32), *out = UNTOUCHED;
	CHECK_INT(lock_manager_lock(manager, 4), 0);
	CHECK_FAILURE(lock_manager_new_shm(name, 32, NULL, &out), -EEXIST, name);
	CHECK(out == UNTOUCHED);
	CHECK_INT(lock_manager_unlock(manager, 4), 0);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void nothing_there_is_not_found(void)
{
	const char *name = new_name();
	lock_manager_t *out = UNTOUCHED;
	CHECK_FAILURE(lock_manager_open_shm(name, 0, &out), -ENOENT, name);
	CHECK_FAILURE(lock_manager_open_shm_read_only(name, &out), -ENOENT, name);
	CHECK_FAILURE(lock_manager_remove_shm(name), -ENOENT, name);
	CHECK_FAILURE(lock_manager_open_or_new_shm(name, 0, NULL, &out), -EINVAL, name);
	CHECK(out == UNTOUCHED);
	CHECK(!file_exists(file_of(name)));
}

static void a_directory_that_is_not_there_is_not_found(void)
{
	char path[NAME_SIZE + 32];
	snprintf(path, sizeof path, "%s/locks", file_of(new_name()));
	check_path_is(path, path, -ENOENT);
}

static void a_file_in_the_place_of_a_directory_is_none(void)
{
	char path[NAME_SIZE + 32];
	const char *name = new_name();
	CHECK_INT(lock_manager_close(new_segment(name, 32)), 0);
	snprintf(path, sizeof path, "%s/locks", file_of(name));
	check_path_is(path, path, -ENOTDIR);
}

static void what_is_no_regular_file_is_no_segment(void)
{
	const char *name = new_name();
	REQUIRE(mkdir(file_of(name), 0700) == 0);
	check_path(name, name, NOT_A_SEGMENT);
	CHECK_INT(rmdir(file_of(name)), 0);

	/* Opening a FIFO waits for the other side, unless one takes care. */
	REQUIRE(mkfifo(file_of(name), 0600) == 0);
	check_path(name, name, NOT_A_SEGMENT);
	CHECK_INT(unlink(file_of(name)), 0);

	struct sockaddr_un address = { .sun_family = AF_UNIX };
	snprintf(address.sun_path, sizeof address.sun_path, "%.100s", file_of(name));
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);
	REQUIRE(bind(listener, (struct sockaddr *)&address, sizeof address) == 0);
	check_path(name, name, NOT_A_SEGMENT);
	CHECK_INT(close(listener), 0);
	CHECK_INT(unlink(file_of(name)), 0);

	check_path("/dev/null", "/dev/null", NOT_A_SEGMENT);
}

static void a_symbolic_link_is_not_followed(void)
{
	const struct verdict expected = { -EEXIST, -EACCES, -EACCES, -EACCES, -EACCES };
	const char *name = new_name(), *alias = new_name();
	CHECK_INT(lock_manager_close(new_segment(name, 32)), 0);
	REQUIRE(symlink(name + 1, file_of(alias)) == 0);
	check_path(alias, alias, expected);
	CHECK(file_exists(file_of(alias)));
	CHECK_INT(lock_manager_remove_shm(name), 0);
	check_path(alias, alias, expected);
	CHECK(!file_exists(file_of(name)));
}

static void a_file_without_our_magic_number_is_no_segment_and_stays(void)
{
	const char *name = new_name();
	for (size_t size = 0; size <= 4096; size = size ? size * 64 : 1) {
		FILE *file = fopen(file_of(name), "w");
		REQUIRE(file != NULL);
		for (size_t i = 0; i < size; i++)
			fputc('x', file);
		REQUIRE(fclose(file) == 0);
		check_path(name, name, NOT_A_SEGMENT);
		CHECK(file_exists(file_of(name)));
	}
}

/* What carries the magic number is ours to remove, however little of it is left. */
static void a_truncated_segment_is_damaged_but_can_be_removed(void)
{
	/* Below 0: that much less than there was. More than there was is damage only where the number of locks is fixed. */
	static const off_t of_libpod[] = { 2, 4, 48, 55, 56, 64, 1000, -4096, -8, -1, INT32_MAX };
	static const off_t of_native[] = { 8, 12, 48, 100, 160, 255, 256, 260, 4095, 4096, -4096, -8, -1 };
	int is_libpod = layout_under_test() == LOCK_MANAGER_LAYOUT_LIBPOD;
	const off_t *lengths = is_libpod ? of_libpod : of_native;
	size_t count = is_libpod ? sizeof of_libpod / sizeof *of_libpod : sizeof of_native / sizeof *of_native;
	const char *name = new_name();
	for (size_t i = 0; i < count; i++) {
		lock_manager_t *out = UNTOUCHED;
		struct stat facts;
		CHECK_INT(lock_manager_close(new_segment(name, 2048)), 0);
		REQUIRE(stat(file_of(name), &facts) == 0);
		off_t length = lengths[i] < 0 ? facts.st_size + lengths[i] :
			       lengths[i] == INT32_MAX ? facts.st_size + 1 : lengths[i];
		REQUIRE(truncate(file_of(name), length) == 0);
		CHECK_FAILURE(lock_manager_open_shm(name, 0, &out), -EPROTO, name);
		CHECK_FAILURE(lock_manager_open_shm(name, 2048, &out), -EPROTO, name);
		CHECK_FAILURE(lock_manager_open_or_new_shm(name, 2048, NULL, &out), -EPROTO, name);
		CHECK_FAILURE(lock_manager_open_shm_read_only(name, &out), -EPROTO, name);
		CHECK(out == UNTOUCHED);
		CHECK_INT(lock_manager_remove_shm(name), 0);
		CHECK(!file_exists(file_of(name)));
	}
}

static void the_segment_of_a_stranger_can_only_be_looked_at(void)
{
	const char *name = new_name();
	lock_manager_t *out = UNTOUCHED;
	if (geteuid() != 0)
		SKIP("only root can give a file away");
	CHECK_INT(lock_manager_close(new_segment(name, 32)), 0);
	REQUIRE(chown(file_of(name), 65534, 65534) == 0);
	CHECK_FAILURE(lock_manager_open_shm(name, 32, &out), -EACCES, name);
	CHECK_FAILURE(lock_manager_open_or_new_shm(name, 32, NULL, &out), -EACCES, "65534");
	CHECK(out == UNTOUCHED);
	CHECK_INT(lock_manager_close(open_to_look(name)), 0);
}

static void who_may_only_look_can_change_nothing(void)
{
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 32), *watcher = open_to_look(name);
	lock_manager_lock_info_t lock = { .size = sizeof lock };
	lock_manager_info_t storage = { .size = sizeof storage };
	uint32_t number = 77, ids[1] = { 77 }, rounded = layout_under_test() == LOCK_MANAGER_LAYOUT_LIBPOD ? 32 : 64;
	size_t count = 77;
	CHECK_INT(lock_manager_allocate_and_retrieve_lock(manager, 4), 0);
	CHECK_INT(lock_manager_lock(manager, 4), 0);

	CHECK_FAILURE(lock_manager_allocate_lock(watcher, &number), -EACCES, name);
	CHECK_FAILURE(lock_manager_allocate_and_retrieve_lock(watcher, 5), -EACCES, name);
	CHECK_FAILURE(lock_manager_free_lock(watcher, 4), -EACCES, name);
	CHECK_FAILURE(lock_manager_free_all_locks(watcher), -EACCES, name);
	CHECK_FAILURE(lock_manager_grow(watcher, 64), -EACCES, name);
	CHECK_FAILURE(lock_manager_lock(watcher, 5), -EACCES, name);
	CHECK_FAILURE(lock_manager_try_lock(watcher, 5), -EACCES, name);
	CHECK_FAILURE(lock_manager_timed_lock(watcher, 5, 0), -EACCES, name);
	CHECK_FAILURE(lock_manager_unlock(watcher, 4), -EACCES, name);
	CHECK_FAILURE(lock_manager_repair_lock(watcher, 4), -EACCES, name);
	CHECK_INT(number, 77);

	CHECK_INT(lock_manager_retrieve_lock(watcher, 4), 0);
	CHECK_INT(lock_manager_num_locks(watcher, &number), 0);
	CHECK_INT(number, rounded);
	CHECK_INT(lock_manager_available_locks(watcher, &number), 0);
	CHECK_INT(number, rounded - 1);
	CHECK_INT(lock_manager_locks_held(watcher, ids, 1, &count), 0);
	CHECK_INT(count, 1);
	CHECK_INT(ids[0], 4);
	CHECK_INT(lock_manager_lock_info(watcher, 4, &lock), 0);
	CHECK_INT(lock.held, 1);
	CHECK_INT(lock.pid, getpid());
	CHECK_INT(lock_manager_info(watcher, &storage), 0);
	CHECK_INT(storage.num_locks, rounded);

	CHECK_INT(lock_manager_close(watcher), 0);
	CHECK_INT(lock_manager_unlock(manager, 4), 0);
	CHECK_INT(lock_manager_close(manager), 0);
}

int main(void)
{
	RUN_TEST(what_can_be_no_name_is_refused);
	RUN_TEST(a_name_of_more_than_255_bytes_is_refused);
	RUN_TEST(a_path_longer_than_the_system_allows_is_refused);
	RUN_TEST(a_posix_name_and_the_path_of_its_file_mean_the_same_segment);
	RUN_TEST(a_second_creation_is_refused_and_the_first_goes_on);
	RUN_TEST(nothing_there_is_not_found);
	RUN_TEST(a_directory_that_is_not_there_is_not_found);
	RUN_TEST(a_file_in_the_place_of_a_directory_is_none);
	RUN_TEST(what_is_no_regular_file_is_no_segment);
	RUN_TEST(a_symbolic_link_is_not_followed);
	RUN_TEST(a_file_without_our_magic_number_is_no_segment_and_stays);
	RUN_TEST(a_truncated_segment_is_damaged_but_can_be_removed);
	RUN_TEST(the_segment_of_a_stranger_can_only_be_looked_at);
	RUN_TEST(who_may_only_look_can_change_nothing);
	return end_of_tests();
}
