/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The structs that begin with their size: programs older and newer than the library, and fields with values that no
 * version has.
 */
#define _GNU_SOURCE
#include "segment.h"

enum { TAIL = 24 };

static int places_a_manager_never_has;
#define UNTOUCHED ((lock_manager_t *)(void *)&places_a_manager_never_has)

/* As a program would have it that was compiled with a later header. */
struct later_options {
	lock_manager_shm_options_t known;
	unsigned char tail[TAIL];
};

struct later_lock_info {
	lock_manager_lock_info_t known;
	unsigned char tail[TAIL];
};

struct later_info {
	lock_manager_info_t known;
	unsigned char tail[TAIL];
};

static int all_bytes_are(const void *start, size_t size, unsigned char value)
{
	const unsigned char *bytes = start;
	while (size > 0 && *bytes == value) {
		bytes++;
		size--;
	}
	return size == 0;
}

/* Creates, or opens and creates, with those options: both must give the same code and leave nothing on failure. */
static void check_options(const void *options, int32_t code)
{
	const char *name = new_name();
	for (int i = 0; i < 2; i++) {
		lock_manager_t *out = UNTOUCHED;
		int32_t actual = i ? lock_manager_new_shm(name, 32, options, &out) :
				     lock_manager_open_or_new_shm(name, 32, options, &out);
		CHECK_INT(actual, code);
		if (actual == 0) {
			CHECK_INT(lock_manager_close(out), 0);
			CHECK_INT(lock_manager_remove_shm(name), 0);
		} else {
			CHECK(out == UNTOUCHED);
			CHECK(*lock_manager_last_error() != '\0');
			CHECK(!file_exists(file_of(name)));
		}
	}
}

static void options_of_a_later_version_are_taken_if_what_is_new_is_zero(void)
{
	struct later_options options = { .known = { .size = sizeof options } };
	check_options(&options, 0);
	options.known.size = sizeof options.known;
	options.tail[0] = 1;
	check_options(&options, 0);
}

static void options_of_a_later_version_are_refused_if_they_say_something_new(void)
{
	for (size_t i = 0; i < TAIL; i += TAIL - 1) {
		struct later_options options = { .known = { .size = sizeof options } };
		options.tail[i] = 1;
		check_options(&options, -EINVAL);
	}
}

static void options_without_a_proper_size_are_refused(void)
{
	static const size_t sizes[] = { 0, 1, sizeof(size_t), sizeof(lock_manager_shm_options_t) - 1, SIZE_MAX };
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
		check_options(&(lock_manager_shm_options_t){ .size = sizes[i] }, -EINVAL);
}

static void a_flag_is_refused_whichever_it_is(void)
{
	lock_manager_shm_options_t options = { .size = sizeof options };
	for (unsigned bit = 0; bit < 32; bit += 31) {
		options.flags = UINT32_C(1) << bit;
		check_options(&options, -EINVAL);
	}
}

static void a_layout_that_nobody_knows_is_refused(void)
{
	static const uint32_t layouts[] = { 3, 0x80000000, UINT32_MAX };
	lock_manager_shm_options_t options = { .size = sizeof options };
	for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++) {
		options.layout = layouts[i];
		check_options(&options, -EINVAL);
	}
	options.layout = LOCK_MANAGER_LAYOUT_DEFAULT;
	check_options(&options, 0);
	options.layout = LOCK_MANAGER_LAYOUT_LIBPOD;
	check_options(&options, 0);
	options.layout = LOCK_MANAGER_LAYOUT_NATIVE;
	check_options(&options, 0);
}

static void the_layout_that_is_there_is_no_other(void)
{
	static const uint32_t layouts[] = { LOCK_MANAGER_LAYOUT_LIBPOD, LOCK_MANAGER_LAYOUT_NATIVE };
	for (int i = 0; i < 2; i++) {
		const char *name = new_name();
		lock_manager_shm_options_t options = { .size = sizeof options, .layout = layouts[i] };
		lock_manager_info_t info = { .size = sizeof info };
		lock_manager_t *manager = NULL, *none = NULL;
		CHECK_INT(lock_manager_new_shm(name, 64, &options, &manager), 0);
		CHECK_INT(lock_manager_info(manager, &info), 0);
		CHECK_INT(info.layout, layouts[i]);
		CHECK_INT(lock_manager_close(manager), 0);
		CHECK_INT(lock_manager_open_or_new_shm(name, 64, NULL, &manager), 0);
		CHECK_INT(lock_manager_close(manager), 0);
		options.layout = layouts[!i];
		CHECK_FAILURE(lock_manager_open_or_new_shm(name, 64, &options, &none), -EPROTO, name);
		CHECK(none == NULL);
	}
}

static void the_default_layout_is_native(void)
{
	lock_manager_info_t info = { .size = sizeof info };
	lock_manager_t *manager = NULL;
	CHECK_INT(lock_manager_new_shm(new_name(), 64, NULL, &manager), 0);
	CHECK_INT(lock_manager_info(manager, &info), 0);
	CHECK_INT(info.layout, LOCK_MANAGER_LAYOUT_NATIVE);
	CHECK_INT(info.max_locks, 1048576);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void a_mode_has_permission_bits_only(void)
{
	static const uint32_t modes[] = { 01000, 04600, 0100600, 0x80000000, UINT32_MAX };
	lock_manager_shm_options_t options = { .size = sizeof options };
	for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
		options.mode = modes[i];
		check_options(&options, -EINVAL);
	}
}

static mode_t mode_of_a_new_segment(uint32_t asked, mode_t mask)
{
	const char *name = new_name();
	lock_manager_shm_options_t options = { .size = sizeof options, .mode = asked };
	lock_manager_t *manager = NULL;
	struct stat facts;
	mode_t before = umask(mask);
	CHECK_INT(lock_manager_new_shm(name, 32, &options, &manager), 0);
	umask(before);
	REQUIRE(stat(file_of(name), &facts) == 0);
	CHECK_INT(lock_manager_close(manager), 0);
	return facts.st_mode & 07777;
}

static void the_umask_does_not_apply(void)
{
	CHECK_INT(mode_of_a_new_segment(0, 0), 0600);
	CHECK_INT(mode_of_a_new_segment(0, 0777), 0600);
	CHECK_INT(mode_of_a_new_segment(0664, 077), 0664);
	CHECK_INT(mode_of_a_new_segment(0777, 022), 0777);
}

static void mode_and_max_locks_are_for_creation_only(void)
{
	const char *name = new_name();
	lock_manager_shm_options_t options = { .size = sizeof options, .mode = 0666, .max_locks = 4096 };
	lock_manager_t *manager = NULL;
	lock_manager_info_t info = { .size = sizeof info };
	struct stat facts;
	CHECK_INT(lock_manager_close(new_segment(name, 64)), 0);
	CHECK_INT(lock_manager_open_or_new_shm(name, 64, &options, &manager), 0);
	REQUIRE(stat(file_of(name), &facts) == 0);
	CHECK_INT(facts.st_mode & 07777, 0600);
	CHECK_INT(lock_manager_info(manager, &info), 0);
	CHECK_INT(info.num_locks, 64);
	CHECK_INT(lock_manager_close(manager), 0);
}

static void the_library_zeroes_what_a_later_program_has_beyond_it(void)
{
	lock_manager_t *manager = new_segment(new_name(), 64);
	struct later_lock_info lock;
	struct later_info storage;
	memset(&lock, 0xa5, sizeof lock);
	memset(&storage, 0xa5, sizeof storage);
	lock.known.size = sizeof lock;
	storage.known.size = sizeof storage;
	CHECK_INT(lock_manager_lock_info(manager, 9, &lock.known), 0);
	CHECK_INT(lock_manager_info(manager, &storage.known), 0);
	CHECK_INT(lock.known.size, sizeof lock);
	CHECK_INT(storage.known.size, sizeof storage);
	CHECK(all_bytes_are(lock.tail, sizeof lock.tail, 0));
	CHECK(all_bytes_are(storage.tail, sizeof storage.tail, 0));
	CHECK_INT(lock_manager_close(manager), 0);
}

static void every_known_field_is_written_and_none_behind_it(void)
{
	lock_manager_t *manager = new_segment(new_name(), 64);
	struct later_lock_info lock;
	struct later_info storage;
	memset(&lock, 0xa5, sizeof lock);
	memset(&storage, 0xa5, sizeof storage);
	lock.known.size = sizeof lock.known;
	storage.known.size = sizeof storage.known;
	CHECK_INT(lock_manager_lock_info(manager, 9, &lock.known), 0);
	CHECK_INT(lock.known.size, sizeof lock.known);
	CHECK_INT(lock.known.id, 9);
	CHECK_INT(lock.known.allocated, 0);
	CHECK_INT(lock.known.held, 0);
	CHECK_INT(lock.known.owner_died, 0);
	CHECK_INT(lock.known.pid, 0);
	CHECK_INT(lock.known.tid, 0);
	CHECK_INT(lock.known.waiters, 0);
	CHECK_INT(lock.known.ownership, LOCK_MANAGER_OWNED_BY_THREAD);
	CHECK_INT(lock.known.acquisitions, 0);
	CHECK_INT(lock.known.pid_namespace, 0);
	CHECK_INT(lock.known.waited_ns, 0);
	CHECK_INT(lock.known.readers, 0);
	CHECK_INT(lock.known.draining, 0);
	CHECK(all_bytes_are(lock.tail, sizeof lock.tail, 0xa5));

	CHECK_INT(lock_manager_info(manager, &storage.known), 0);
	CHECK_INT(storage.known.size, sizeof storage.known);
	CHECK_INT(storage.known.kind, LOCK_MANAGER_KIND_SHM);
	int is_libpod = layout_under_test() == LOCK_MANAGER_LAYOUT_LIBPOD;
	CHECK_INT(storage.known.layout, layout_under_test());
	CHECK_INT(storage.known.num_locks, 64);
	CHECK_INT(storage.known.max_locks, is_libpod ? 64 : 1048576);
	CHECK_INT(storage.known.attached, is_libpod ? 0 : 1);
	CHECK_INT(storage.known.retired, 0);
	CHECK(all_bytes_are(storage.tail, sizeof storage.tail, 0xa5));
	CHECK_INT(lock_manager_close(manager), 0);
}

static void a_program_of_the_first_version_gets_what_it_knows(void)
{
	lock_manager_t *manager = new_segment(new_name(), 64);
	lock_manager_lock_info_t lock;
	memset(&lock, 0xa5, sizeof lock);
	lock.size = offsetof(lock_manager_lock_info_t, readers);
	CHECK_INT(lock_manager_lock_info(manager, 9, &lock), 0);
	CHECK_INT(lock.size, offsetof(lock_manager_lock_info_t, readers));
	CHECK_INT(lock.waited_ns, 0);
	CHECK(all_bytes_are((unsigned char *)&lock.readers, sizeof lock - lock.size, 0xa5));
	CHECK_INT(lock_manager_close(manager), 0);
}

static void an_info_without_a_proper_size_is_refused_and_left_alone(void)
{
	const char *name = new_name();
	lock_manager_t *manager = new_segment(name, 64);
	static const size_t short_by[] = { 1, 4, sizeof(size_t) };
	for (size_t i = 0; i <= sizeof short_by / sizeof *short_by; i++) {
		lock_manager_lock_info_t lock;
		lock_manager_info_t storage;
		int none = i == sizeof short_by / sizeof *short_by;
		memset(&lock, 0xa5, sizeof lock);
		memset(&storage, 0xa5, sizeof storage);
		lock.size = none ? 0 : offsetof(lock_manager_lock_info_t, readers) - short_by[i];
		storage.size = none ? 0 : sizeof storage - short_by[i];
		CHECK_FAILURE(lock_manager_lock_info(manager, 9, &lock), -EINVAL, "size");
		CHECK_FAILURE(lock_manager_info(manager, &storage), -EINVAL, "size");
		CHECK(all_bytes_are(&lock.id, sizeof lock - sizeof(size_t), 0xa5));
		CHECK(all_bytes_are(&storage.kind, sizeof storage - sizeof(size_t), 0xa5));
	}
	CHECK_INT(lock_manager_close(manager), 0);
}

int main(void)
{
	RUN_TEST(options_of_a_later_version_are_taken_if_what_is_new_is_zero);
	RUN_TEST(options_of_a_later_version_are_refused_if_they_say_something_new);
	RUN_TEST(options_without_a_proper_size_are_refused);
	RUN_TEST(a_flag_is_refused_whichever_it_is);
	RUN_TEST(a_layout_that_nobody_knows_is_refused);
	RUN_TEST(the_layout_that_is_there_is_no_other);
	RUN_TEST(the_default_layout_is_native);
	RUN_TEST(a_mode_has_permission_bits_only);
	RUN_TEST(the_umask_does_not_apply);
	RUN_TEST(mode_and_max_locks_are_for_creation_only);
	RUN_TEST(the_library_zeroes_what_a_later_program_has_beyond_it);
	RUN_TEST(every_known_field_is_written_and_none_behind_it);
	RUN_TEST(a_program_of_the_first_version_gets_what_it_knows);
	RUN_TEST(an_info_without_a_proper_size_is_refused_and_left_alone);
	return end_of_tests();
}
