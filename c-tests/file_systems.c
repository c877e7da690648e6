/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * File systems that hosts share are refused, by what fstatfs(2) says of them: this program says it in its place.
 */
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <sys/vfs.h>

#include "segment.h"

/* 0: what the kernel says. */
static unsigned long claimed;

/* Found by the library before the libc's. */
int fstatfs(int fd, struct statfs *facts)
{
	long code = syscall(SYS_fstatfs, fd, facts);
	if (code == 0 && claimed != 0)
		facts->f_type = (__fsword_t)claimed;
	return (int)code;
}

/* linux/magic.h, and what the others' own sources say. */
static const unsigned long shared_by_hosts[] = {
	0x6969 /* NFS */, 0xfe534d42 /* SMB2 */, 0x65735546 /* FUSE */, 0x01021997 /* 9p */, 0x00c36400 /* Ceph */,
	0x5346414f /* AFS */, 0x0bd00bd0 /* Lustre */, 0x7461636f /* OCFS2 */, 0x01161970 /* GFS2 */,
	0x47504653 /* GPFS */, 0x20030528 /* OrangeFS */, 0x19830326 /* BeeGFS */, 0x61636673 /* ACFS */,
	0xaad7aaea /* PanFS */, 0xbeefdead /* StorNext */, 0x013111a8 /* IBRIX */, 0xa501fcf5 /* VxFS */,
	0x786f4256 /* vboxsf */, 0xbacbacbc /* vmhgfs */, 0x7c7c6673 /* prl_fs */, 0x00c0ffee /* hostfs */,
};

static void what_hosts_share_is_refused(void)
{
	lock_manager_t *manager;
	const char *there = new_name(), *fresh = new_name();
	char *directory = strdup(file_of(new_name()));
	CHECK_INT(lock_manager_close(new_segment(there, 64)), 0);
	REQUIRE(directory != NULL && mkdir(directory, 0700) == 0);
	for (size_t i = 0; i < sizeof shared_by_hosts / sizeof *shared_by_hosts; i++) {
		claimed = shared_by_hosts[i];
		CHECK_FAILURE(lock_manager_open_shm(there, 0, &manager), -EOPNOTSUPP, "/run");
		CHECK_FAILURE(lock_manager_new_shm(fresh, 64, NULL, &manager), -EOPNOTSUPP, "/run");
		CHECK_FAILURE(lock_manager_open_or_new_file(directory, &manager), -EOPNOTSUPP, "/run");
		CHECK(!file_exists(file_of(fresh)));
	}
	claimed = 0;
	CHECK_INT(lock_manager_open_shm(there, 0, &manager), 0);
	CHECK_INT(lock_manager_close(manager), 0);
	CHECK(rmdir(directory) == 0);
	free(directory);
}

/* What is reserved there is not kept, so that a later touch may be a SIGBUS. */
static void where_each_write_takes_a_new_place_no_segment_is_made(void)
{
	static const unsigned long types[] = { 0x3434 /* nilfs2 */, 0xca451a4e /* bcachefs */ };
	lock_manager_t *manager;
	const char *name = new_name();
	for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
		claimed = types[i];
		CHECK_FAILURE(lock_manager_new_shm(name, 64, NULL, &manager), -EOPNOTSUPP, "/run");
		CHECK(!file_exists(file_of(name)));
	}
	claimed = 0;
	CHECK_INT(lock_manager_new_shm(name, 64, NULL, &manager), 0);
	CHECK_INT(lock_manager_close(manager), 0);
}

int main(void)
{
	start_watchdog();
	RUN_TEST(what_hosts_share_is_refused);
	RUN_TEST(where_each_write_takes_a_new_place_no_segment_is_made);
	return end_of_tests();
}
