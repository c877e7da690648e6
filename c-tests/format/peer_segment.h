// SPDX-License-Identifier: MIT OR Apache-2.0
/* Of peer.c: the parts of a segment, how it is opened, and what the kernel is asked. */
#ifndef FORMAT_PEER_SEGMENT_H
#define FORMAT_PEER_SEGMENT_H

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

enum { PAGE = 4096, ENTRIES = 8192, ENTRY_SIZE = 64, ENTRY_PAGES = 128, RECORDS = 8192, RECORD_SIZE = 32, PROBES = 16 };
enum { SLOT_SIZE = 64, SLOT_CELLS = 4, TABLE_CELLS = 8192, CELL_SIZE = 16, CELL_PAGES = 192, READY_WORDS = 4 };
enum { RETIRED = 256, NUM_LOCKS = 320, ROTOR = 384, DETECTOR = 512, READY = 576, FREES = 640 };
enum { ENTRY_TABLE = PAGE, RECORD_TABLE = ENTRY_TABLE + ENTRIES * ENTRY_SIZE };
/* In version 1 the summary is there. */
enum { CELL_TABLE = RECORD_TABLE + RECORDS * RECORD_SIZE };
enum { TOLD_OF_DEATH = 1 };

/* With an owner RESERVED says that it drains; without one STARVING says that readers may be in. */
static const uint64_t OWNER_DIED = 1u << 28, RESERVED = 1u << 29, STARVING = 1u << 30, WAITERS = 1u << 31;
static const uint64_t ENTRY = 0x1fff, OWNER = ~(UINT64_C(15) << 28), FOR_EVER = UINT64_MAX;
static const uint64_t MILLISECOND = 1000000, SLICE = 5000000;

static struct {
	const char *path;
	char *map;
	/* Asks for record locks and holds none. */
	int asker;
	uint32_t known_locks, max_locks;
	uint64_t summary, bitmap, slots, device, inode;
	uint32_t entry, serials;
	uint64_t generation, pid_namespace, time_namespace;
	bool has_cells, sees_proc, walks, by_process;
} segment = { .walks = true };

static _Thread_local struct {
	uint64_t owner, *record;
	uint32_t wish;
	/* For the tests: whether the last sleep was ended by a wake-up, and whom the last unlock woke. */
	bool was_woken;
	int woke;
} self;

#define LOAD(at) __atomic_load_n(at, __ATOMIC_ACQUIRE)
#define STORE(at, value) __atomic_store_n(at, value, __ATOMIC_RELEASE)
/* Where the document says "sequentially consistent". */
#define LOAD_IN_ORDER(at) __atomic_load_n(at, __ATOMIC_SEQ_CST)
#define STORE_IN_ORDER(at, value) __atomic_store_n(at, value, __ATOMIC_SEQ_CST)

static bool swap(uint64_t *word, uint64_t from, uint64_t to)
{
	return __atomic_compare_exchange_n(word, &from, to, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

static bool swap_in_order(uint64_t *word, uint64_t from, uint64_t to)
{
	return __atomic_compare_exchange_n(word, &from, to, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

static uint64_t *at64(uint64_t offset)
{
	return (uint64_t *)(void *)(segment.map + offset);
}

static uint32_t *at32(uint64_t offset)
{
	return (uint32_t *)(void *)(segment.map + offset);
}

static uint64_t *slot(uint32_t lock)
{
	return at64(segment.slots + UINT64_C(64) * lock);
}

static uint64_t *entry_at(uint32_t entry)
{
	return at64(ENTRY_TABLE + UINT64_C(64) * entry);
}

static uint64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint32_t generation_of(uint64_t word)
{
	return (uint32_t)(word >> 13 & 0x7fff) | (uint32_t)(word >> 54) << 15;
}

static bool lives_by_state(uint64_t state, uint64_t word)
{
	return (state & 1) && (state >> 1 & 0x1ffffff) == generation_of(word);
}

/* The present number of locks, as far as it can be believed. */
static uint32_t num_locks(void)
{
	struct stat file;
	uint32_t said = LOAD(at32(NUM_LOCKS)), known = LOAD(&segment.known_locks);
	if (said <= known || said % 64 != 0 || said > segment.max_locks || fstat(segment.asker, &file) != 0 ||
	    (uint64_t)file.st_size < segment.slots + UINT64_C(64) * said)
		return known;
	STORE(&segment.known_locks, said);
	return said;
}

/* Entries, records and the cell table follow each other, and so do their pages and bits. */
static bool page_is_ready(unsigned page)
{
	return LOAD_IN_ORDER(at64(READY) + page / 64) >> page % 64 & 1;
}

/* Whether it can be touched. `make`: where it is not ready, it becomes it. */
static bool page_is_usable(unsigned page, bool make)
{
	static uint64_t reserved[READY_WORDS];
	uint64_t bit = UINT64_C(1) << page % 64, *ready = at64(READY) + page / 64;
	if (LOAD(&reserved[page / 64]) & bit)
		return true;
	if (!make && !page_is_ready(page))
		return false;
	off_t start = ENTRY_TABLE + (off_t)page * PAGE;
	/* Where there is no fallocate, what others write there meanwhile must stay. */
	if (fallocate(segment.asker, 0, start, PAGE) != 0 &&
	    (errno != EOPNOTSUPP || madvise(segment.map + start, PAGE, MADV_POPULATE_WRITE) != 0))
		return false;
	__atomic_fetch_or(&reserved[page / 64], bit, __ATOMIC_RELEASE);
	if (make)
		__atomic_fetch_or(ready, bit, __ATOMIC_SEQ_CST);
	return true;
}

/* Record locks of the file. */

static struct flock byte_lock(off_t byte, short type)
{
	struct flock lock;
	memset(&lock, 0, sizeof lock);
	lock.l_type = type;
	lock.l_whence = SEEK_SET;
	lock.l_start = byte;
	lock.l_len = 1;
	return lock;
}

static bool lock_byte(int fd, off_t byte)
{
	struct flock lock = byte_lock(byte, F_WRLCK);
	return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

/* Whether another description has a write lock there; where it cannot be asked, as if it had. */
static bool is_locked(int fd, off_t start, off_t length)
{
	struct flock lock = byte_lock(start, F_RDLCK);
	lock.l_len = length;
	return fcntl(fd, F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

/* F_WRLCK: somebody lives there. F_UNLCK: nobody does; a read lock of whomever is no sign of life. */
static bool entry_byte_reads_as(uint32_t entry, short type)
{
	struct flock lock = byte_lock(ENTRY_TABLE + (off_t)ENTRY_SIZE * entry, F_RDLCK);
	return fcntl(segment.asker, F_OFD_GETLK, &lock) == 0 && lock.l_type == type;
}

static int open_once_more(void)
{
	struct stat file;
	int fd = open(segment.path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd >= 0 && (fstat(fd, &file) != 0 || file.st_dev != segment.device || file.st_ino != segment.inode)) {
		close(fd);
		return -1;
	}
	return fd;
}

/* Removal. */

enum { IN_USE = 0, REMOVING = 1, REMOVED = 2 };

static bool has_no_name(void)
{
	struct stat file;
	return fstat(segment.asker, &file) == 0 && file.st_nlink == 0;
}

/* Of a remover that died, where nobody else can become one meanwhile. */
static void settle_mark(void)
{
	int fd = open_once_more();
	if (fd >= 0 && lock_byte(fd, 0)) {
		uint32_t from = REMOVING, to = has_no_name() ? REMOVED : IN_USE;
		__atomic_compare_exchange_n(at32(RETIRED), &from, to, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
	}
	if (fd >= 0)
		close(fd);
}

/* A remover at work is none yet that has removed the segment. */
static bool is_removed(void)
{
	if (LOAD(at32(RETIRED)) == REMOVING && !has_no_name() && !is_locked(segment.asker, 0, 1))
		settle_mark();
	uint32_t retired = LOAD(at32(RETIRED));
	return retired == REMOVING ? has_no_name() : retired != IN_USE;
}

/* Sleeping and waking. */

static uint32_t *futex_half(uint64_t *word)
{
	return (uint32_t *)(void *)word + (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? 0 : 1);
}

static int wake_one(uint64_t *word, uint32_t classes)
{
	return (int)syscall(SYS_futex, futex_half(word), FUTEX_WAKE_BITSET, 1, NULL, NULL, classes);
}

/* Where nobody sleeps, there is nobody for whom the lock could be reserved. */
static int reserve_no_more(uint64_t *word)
{
	uint64_t seen = LOAD(word);
	while ((seen & ENTRY) == 0 && (seen & RESERVED) && (seen & WAITERS)) {
		if (swap(word, seen, seen & ~(RESERVED | WAITERS)))
			return wake_one(word, FUTEX_BITSET_MATCH_ANY);
		seen = LOAD(word);
	}
	return 0;
}

/* Any sleeper. */
static int wake_any(uint64_t *word)
{
	int woken = wake_one(word, FUTEX_BITSET_MATCH_ANY);
	return woken != 0 ? woken : reserve_no_more(word);
}

static int wake_oldest(uint64_t *word)
{
	int woken = 0;
	for (uint32_t class = 16; class != 0 && woken == 0; class /= 2)
		woken = wake_one(word, class);
	return woken != 0 ? woken : reserve_no_more(word);
}

/* All of these classes, on a word or a cell. */
static int wake_all(uint64_t *word, uint32_t classes)
{
	return (int)syscall(SYS_futex, futex_half(word), FUTEX_WAKE_BITSET, INT32_MAX, NULL, NULL, classes);
}

static int sleep_on(uint64_t *word, uint64_t seen, uint64_t until, uint32_t classes)
{
	/* What this system call takes on 32-bit machines, too, whatever the libc's timespec is. */
	struct { long seconds, nanoseconds; } end = { (long)(until / 1000000000), (long)(until % 1000000000) };
	int error = 0;
	if (syscall(SYS_futex, futex_half(word), FUTEX_WAIT_BITSET, (uint32_t)seen, &end, NULL, classes) != 0)
		error = errno;
	return error;
}

static uint32_t classes_after(uint64_t waited)
{
	uint64_t steps = waited / (20 * MILLISECOND);
	return 1 | (steps == 0 ? 0 : 1u << (steps < 4 ? steps : 4));
}

/* Opening. */

static uint64_t field(const unsigned char *header, size_t offset, size_t size)
{
	uint64_t wide;
	uint32_t narrow;
	memcpy(&wide, header + offset, sizeof wide);
	memcpy(&narrow, header + offset, sizeof narrow);
	return size == 8 ? wide : narrow;
}

static bool somebody_lives(int fd)
{
	const off_t first = ENTRY_TABLE + ENTRY_SIZE, length = (off_t)ENTRY_SIZE * (ENTRIES - 1);
	for (;;) {
		if (is_locked(fd, first, length))
			return true;
		if (!is_locked(fd, 0, 1))
			return is_locked(fd, first, length);
		usleep(1000);
	}
}

static bool has_this_boots_id(int fd, const unsigned char *boot)
{
	struct statfs system;
	char text[37];
	if (fstatfs(fd, &system) != 0)
		return false;
	if (system.f_type == 0x01021994 /* tmpfs */ || (unsigned long)system.f_type == 0x858458f6ul /* ramfs */)
		return true;
	int file = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	bool read_whole = file >= 0 && read(file, text, sizeof text) >= 36;
	if (file >= 0)
		close(file);
	const char *at = text;
	for (int byte = 0; read_whole && byte < 16; byte++, at += 2) {
		char digits[3];
		at += *at == '-';
		memcpy(digits, at, 2);
		digits[2] = '\0';
		if (strtoul(digits, NULL, 16) != boot[byte])
			return false;
	}
	return read_whole;
}

/* Where the parts are, of which only these depend on the number of locks. */
static void place_parts(uint32_t version, uint32_t most, uint64_t *summary, uint64_t *bitmap, uint64_t *slots)
{
	*summary = CELL_TABLE + (version == 1 ? 0 : TABLE_CELLS * CELL_SIZE);
	*bitmap = (*summary + UINT64_C(8) * ((most / 64 + 63) / 64) + PAGE - 1) / PAGE * PAGE;
	*slots = (*bitmap + most / 8 + PAGE - 1) / PAGE * PAGE;
}

/* What is fixed, and the same in every segment of a version. */
static const struct { size_t at, size; bool version_1_too; uint64_t value; } constants[] = {
	{ 12, 4, true, 0x01020304 }, { 16, 4, true, PAGE }, { 20, 4, true, SLOT_SIZE }, { 24, 4, true, ENTRY_SIZE },
	{ 28, 4, true, ENTRIES }, { 32, 4, true, RECORD_SIZE }, { 36, 4, true, RECORDS }, { 48, 8, false, 0 },
	{ 56, 4, false, CELL_SIZE }, { 60, 4, false, TABLE_CELLS }, { 80, 8, true, ENTRY_TABLE }, { 88, 8, true, RECORD_TABLE },
	{ 104, 8, false, CELL_TABLE },
};

static int open_segment(const char *path)
{
	unsigned char header[PAGE];
	struct stat file;
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &file) != 0 || !S_ISREG(file.st_mode) || pread(fd, header, PAGE, 0) != PAGE ||
	    memcmp(header, "lock-mgr", 8) != 0)
		return -EPROTO;
	uint32_t version = (uint32_t)field(header, 8, 4);
	uint32_t first = (uint32_t)field(header, 40, 4), most = (uint32_t)field(header, 44, 4);
	uint32_t now = (uint32_t)field(header, NUM_LOCKS, 4);
	if (version != 1 && version != 2)
		return -EPROTO;
	for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
		if ((version == 2 || constants[i].version_1_too) &&
		    field(header, constants[i].at, constants[i].size) != constants[i].value)
			return -EPROTO;
	if (first < 64 || first % 64 != 0 || most % 64 != 0 || first > most || most > 16777216)
		return -EPROTO;
	uint64_t summary, bitmap, slots;
	place_parts(version, most, &summary, &bitmap, &slots);
	if (field(header, 64, 8) != summary || field(header, 72, 8) != bitmap || field(header, 96, 8) != slots)
		return -EPROTO;
	/* From there on version 2 has everything 8 bytes further. */
	const size_t device = version == 1 ? 104 : 112, inode = device + 8, boot = inode + 8;
	/* Containers may see an id of their own; whoever lives is of this boot. */
	if (!has_this_boots_id(fd, header + boot) && !somebody_lives(fd))
		return -ESTALE;
	if (field(header, device, 8) != file.st_dev || field(header, inode, 8) != file.st_ino || now < first ||
	    (uint64_t)file.st_size < slots + UINT64_C(64) * first)
		return -EPROTO;
	/* All that may come to be, so that nothing moves when it grows. */
	segment.map = mmap(NULL, (size_t)(slots + UINT64_C(64) * most), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (segment.map == MAP_FAILED)
		return -errno;
	segment.path = path;
	segment.asker = fd;
	segment.has_cells = version == 2;
	segment.known_locks = first;
	segment.max_locks = most;
	segment.summary = summary;
	segment.bitmap = bitmap;
	segment.slots = slots;
	segment.device = file.st_dev;
	segment.inode = file.st_ino;
	return 0;
}

#endif
