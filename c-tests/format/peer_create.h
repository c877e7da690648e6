// SPDX-License-Identifier: MIT OR Apache-2.0
/* Of peer.c: how a segment is made. */
#ifndef FORMAT_PEER_CREATE_H
#define FORMAT_PEER_CREATE_H

#include "peer_segment.h"

static void put(unsigned char *header, size_t offset, size_t size, uint64_t value)
{
	uint32_t narrow = (uint32_t)value;
	if (size == 8)
		memcpy(header + offset, &value, sizeof value);
	else
		memcpy(header + offset, &narrow, sizeof narrow);
}

/* As many bytes as digits are there; 0 where it cannot be read. */
static void put_boot(unsigned char *at)
{
	char text[37] = "";
	int file = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	if (file >= 0 && read(file, text, 36) == 36)
		for (const char *digit = text; *digit != '\0'; digit += 2) {
			char two[3] = "";
			digit += *digit == '-';
			memcpy(two, digit, 2);
			*at++ = (unsigned char)strtoul(two, NULL, 16);
		}
	if (file >= 0)
		close(file);
}

/* Under a name of its own only once it is whole. In memory: on a disk, byte 0 would have to be locked. */
static int make_segment(const char *path, uint32_t version, uint32_t locks, uint32_t most)
{
	unsigned char header[PAGE] = { 0 };
	char directory[256], name[32];
	uint64_t summary, bitmap, slots;
	struct stat file;
	snprintf(directory, sizeof directory, "%.*s", (int)(strrchr(path, '/') - path), path);
	int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0 || fstat(fd, &file) != 0)
		return -errno;
	place_parts(version, most, &summary, &bitmap, &slots);
	const off_t end = (off_t)(slots + UINT64_C(64) * locks);
	if (ftruncate(fd, end) != 0 || fallocate(fd, 0, 0, 2 * PAGE) != 0 ||
	    fallocate(fd, 0, (off_t)summary, (locks / 64 + 63) / 64 * 8) != 0 ||
	    fallocate(fd, 0, (off_t)bitmap, locks / 8) != 0 || fallocate(fd, 0, (off_t)slots, (off_t)locks * 64) != 0)
		return -errno;
	for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
		if (version != 1 || constants[i].version_1_too)
			put(header, constants[i].at, constants[i].size, constants[i].value);
	const size_t device = version == 1 ? 104 : 112;
	uint64_t identity = now_ns() ^ (uint64_t)getpid() << 40;
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	put(header, 8, 4, version);
	put(header, 40, 4, locks);
	put(header, 44, 4, most);
	put(header, 64, 8, summary);
	put(header, 72, 8, bitmap);
	put(header, 96, 8, slots);
	put(header, device, 8, file.st_dev);
	put(header, device + 8, 8, file.st_ino);
	put_boot(header + device + 16);
	put(header, device + 32, 8, identity);
	put(header, device + 48, 8, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
	put(header, NUM_LOCKS, 4, locks);
	put(header, READY, 8, 1);
	snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
	if (pwrite(fd, header, sizeof header, 0) != PAGE || pwrite(fd, "lock-mgr", 8, 0) != 8 ||
	    linkat(AT_FDCWD, name, AT_FDCWD, path, AT_SYMLINK_FOLLOW) != 0)
		return -errno;
	close(fd);
	return 0;
}

#endif
