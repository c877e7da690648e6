// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * A second implementation of the native segment format, written from docs/segment-format.md alone: it uses no line of
 * the library. format_peer_host.c has the two share a segment.
 *
 *   format_peer SEGMENT SCORES-FD
 *
 * Opens the segment and attaches, prints how that went, and then does what it is told: one command a line on standard
 * input, one number a line on standard output, which means what the library's functions mean by it.
 */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <pthread.h>
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

#include "format_peer.h"

enum { PAGE = 4096, ENTRIES = 8192, ENTRY_SIZE = 64, ENTRY_PAGES = 128, RECORDS = 8192, RECORD_SIZE = 32, PROBES = 16 };
enum { RETIRED = 256, NUM_LOCKS = 320, ROTOR = 384, DETECTOR = 512, READY = 576, FREES = 640 };
enum { ENTRY_TABLE = PAGE, RECORD_TABLE = ENTRY_TABLE + ENTRIES * ENTRY_SIZE, SUMMARY = RECORD_TABLE + RECORDS * RECORD_SIZE };
enum { OWNER_DIED = 1 };

static const uint64_t ENTRY = 0x1fff, D = 1u << 28, R = 1u << 29, S = 1u << 30, W = 1u << 31;
static const uint64_t OWNER = ~(UINT64_C(15) << 28), FOR_EVER = UINT64_MAX;
static const uint64_t MILLISECOND = 1000000, SLICE = 5000000;

static struct {
	const char *path;
	char *map;
	/* Asks for record locks and holds none. */
	int asker;
	uint32_t known_locks, max_locks;
	uint64_t bitmap, slots, device, inode;
	uint32_t entry, serials;
	uint64_t generation, pid_namespace, time_namespace;
	bool sees_proc, walks;
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

static bool swap(uint64_t *word, uint64_t from, uint64_t to)
{
	return __atomic_compare_exchange_n(word, &from, to, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
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

/* Entries and records follow each other, and so do their pages and bits. `make`: where it is not there, it comes. */
static bool page_is_usable(unsigned page, bool make)
{
	static uint64_t reserved[3];
	uint64_t bit = UINT64_C(1) << page % 64, *ready = at64(READY) + page / 64;
	if (LOAD(&reserved[page / 64]) & bit)
		return true;
	if (!make && !(LOAD(ready) & bit))
		return false;
	if (fallocate(segment.asker, 0, ENTRY_TABLE + (off_t)page * PAGE, PAGE) != 0)
		return false;
	__atomic_fetch_or(&reserved[page / 64], bit, __ATOMIC_RELEASE);
	if (make)
		__atomic_fetch_or(ready, bit, __ATOMIC_RELEASE);
	return true;
}

/* Record locks of the file. */

static struct flock byte_lock(off_t byte)
{
	struct flock lock;
	memset(&lock, 0, sizeof lock);
	lock.l_type = F_WRLCK;
	lock.l_whence = SEEK_SET;
	lock.l_start = byte;
	lock.l_len = 1;
	return lock;
}

static bool lock_byte(int fd, off_t byte)
{
	struct flock lock = byte_lock(byte);
	return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

static bool entry_byte_reads_as(uint32_t entry, short type)
{
	struct flock lock = byte_lock(ENTRY_TABLE + (off_t)ENTRY_SIZE * entry);
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

/* Sleeping and waking. */

static uint32_t *futex_half(uint64_t *word)
{
	return (uint32_t *)(void *)word + (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? 0 : 1);
}

static int wake_one(uint64_t *word, uint32_t classes)
{
	return (int)syscall(SYS_futex, futex_half(word), FUTEX_WAKE_BITSET, 1, NULL, NULL, classes);
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
	return steps >= 4 ? 31 : (2u << steps) - 1;
}

/* Who lives. */

/* Of /proc/PID/stat or /proc/PID/task/TID/stat. */
static bool read_stat(const char *path, char *state, long *threads, uint64_t *start)
{
	char text[1024];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (fd >= 0)
		close(fd);
	if (length <= 0)
		return false;
	text[length] = '\0';
	/* The command may have blanks and brackets in it. */
	const char *rest = strrchr(text, ')');
	return rest != NULL &&
	       sscanf(rest, ") %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %ld %*s %" SCNu64, state,
		      threads, start) == 3;
}

/* Its record, or NULL. */
static uint64_t *find_record(uint64_t owner, bool claim)
{
	for (uint32_t probe = 0; probe < PROBES; probe++) {
		uint32_t place = (uint32_t)(owner & ENTRY) * 0x9E3779B1u + (uint32_t)(owner >> 32 & 0x3fffff) + 509 * probe;
		place %= RECORDS;
		if (!page_is_usable(ENTRY_PAGES + place * RECORD_SIZE / PAGE, claim))
			continue;
		uint64_t *record = at64(RECORD_TABLE + UINT64_C(32) * place), key = LOAD(record);
		if (!claim && key == owner)
			return record;
		if (!claim || (key != 0 && (!page_is_usable((key & ENTRY) / 64, false) ||
					    lives_by_state(LOAD(entry_at(key & ENTRY)), key))))
			continue;
		if (swap(record, key, owner | W))
			return record;
	}
	return NULL;
}

/* In the caller's PID namespace: a thread, or a process where tid is 0. A start of 0 is not known. */
static bool never_runs_again(int pid, int tid, uint64_t start, uint64_t start_mask)
{
	char path[64], state;
	long threads;
	uint64_t began;
	if (tid ? syscall(SYS_tgkill, pid, tid, 0) != 0 && errno == ESRCH : kill(pid, 0) != 0 && errno == ESRCH)
		return true;
	if (tid)
		snprintf(path, sizeof path, "/proc/%d/task/%d/stat", pid, tid);
	else
		snprintf(path, sizeof path, "/proc/%d/stat", pid);
	if (!segment.sees_proc || !read_stat(path, &state, &threads, &began))
		return false;
	if (start != 0 && (began & start_mask) != start)
		return true;
	/* A process whose main thread has ended may live on in its others. */
	return (state == 'Z' || state == 'X') && (tid || threads <= 1);
}

/* Whether the holder that a word names is dead; `word` was read before. */
static bool holder_is_dead(uint64_t word)
{
	uint32_t entry = word & ENTRY;
	if (entry == 0 || !page_is_usable(entry / 64, false))
		return false;
	uint64_t *state = entry_at(entry), seen = LOAD(state);
	if (!lives_by_state(seen, word))
		return true;
	if (entry_byte_reads_as(entry, F_UNLCK) && entry_byte_reads_as(segment.entry, F_WRLCK) &&
	    entry_byte_reads_as(entry, F_UNLCK)) {
		swap(state, seen, seen - 1);
		return true;
	}
	uint32_t pid = LOAD(at32(ENTRY_TABLE + UINT64_C(64) * entry + 8)), tid = 0;
	uint64_t start = LOAD(state + 2), start_mask = UINT64_MAX;
	if (pid == 0 || segment.pid_namespace == 0 || LOAD(state + 3) != segment.pid_namespace)
		return false;
	uint64_t *record = word >> 32 & 0x3fffff ? find_record(word & OWNER, false) : NULL;
	uint64_t thread = record != NULL ? LOAD(record + 1) : 0;
	if (thread != 0) {
		tid = (uint32_t)thread;
		start = thread >> 32;
		start_mask = UINT32_MAX;
	}
	/* Starts are told apart by the time namespace. */
	if (segment.time_namespace == 0 || LOAD(state + 4) != segment.time_namespace)
		start = 0;
	return never_runs_again((int)pid, (int)tid, start, start_mask) && LOAD(state) == seen;
}

/* Opening and attaching. */

static uint64_t field(const unsigned char *header, size_t offset, size_t size)
{
	uint64_t wide;
	uint32_t narrow;
	memcpy(&wide, header + offset, sizeof wide);
	memcpy(&narrow, header + offset, sizeof narrow);
	return size == 8 ? wide : narrow;
}

static bool is_of_this_boot(int fd, const unsigned char *boot)
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

static int open_segment(const char *path)
{
	unsigned char header[PAGE];
	struct stat file;
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return -errno;
	if (fstat(fd, &file) != 0 || !S_ISREG(file.st_mode) || pread(fd, header, PAGE, 0) != PAGE ||
	    memcmp(header, "lock-mgr", 8) != 0 || field(header, 12, 4) != 0x01020304 || field(header, 8, 4) != 1)
		return -EPROTO;
	uint32_t first = (uint32_t)field(header, 40, 4), most = (uint32_t)field(header, 44, 4);
	uint32_t now = (uint32_t)field(header, NUM_LOCKS, 4);
	if (first < 64 || first % 64 != 0 || most % 64 != 0 || first > most || most > 16777216)
		return -EPROTO;
	uint64_t bitmap = (SUMMARY + UINT64_C(8) * ((most / 64 + 63) / 64) + PAGE - 1) / PAGE * PAGE;
	uint64_t slots = (bitmap + most / 8 + PAGE - 1) / PAGE * PAGE;
	static const struct { size_t at, size; uint64_t value; } constants[] = {
		{ 16, 4, PAGE }, { 20, 4, 64 }, { 24, 4, ENTRY_SIZE }, { 28, 4, ENTRIES }, { 32, 4, RECORD_SIZE },
		{ 36, 4, RECORDS }, { 64, 8, SUMMARY }, { 80, 8, ENTRY_TABLE }, { 88, 8, RECORD_TABLE },
	};
	for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
		if (field(header, constants[i].at, constants[i].size) != constants[i].value)
			return -EPROTO;
	if (field(header, 72, 8) != bitmap || field(header, 96, 8) != slots || field(header, 104, 8) != file.st_dev ||
	    field(header, 112, 8) != file.st_ino || now < first || (uint64_t)file.st_size < slots + UINT64_C(64) * first)
		return -EPROTO;
	if (!is_of_this_boot(fd, header + 120))
		return -ESTALE;
	/* All that may come to be, so that nothing moves when it grows. */
	segment.map = mmap(NULL, (size_t)(slots + UINT64_C(64) * most), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (segment.map == MAP_FAILED)
		return -errno;
	segment.path = path;
	segment.asker = fd;
	segment.known_locks = first;
	segment.max_locks = most;
	segment.bitmap = bitmap;
	segment.slots = slots;
	segment.device = file.st_dev;
	segment.inode = file.st_ino;
	return 0;
}

/* Generations begin again: words of long ago must not name the one that comes. */
static void forget_entry(uint32_t entry)
{
	for (uint32_t lock = 0; lock <= num_locks(); lock++) {
		uint64_t *word = lock < num_locks() ? slot(lock) : at64(DETECTOR), seen = LOAD(word);
		while ((seen & ENTRY) == entry && !swap(word, seen, D | (seen & W)))
			seen = LOAD(word);
		if ((seen & ENTRY) == entry)
			wake_one(word, FUTEX_BITSET_MATCH_ANY);
	}
	for (uint32_t place = 0; place < RECORDS; place++) {
		if (!page_is_usable(ENTRY_PAGES + place * RECORD_SIZE / PAGE, false))
			continue;
		uint64_t *record = at64(RECORD_TABLE + UINT64_C(32) * place), key = LOAD(record);
		if ((key & ENTRY) == entry)
			swap(record, key, 0);
	}
}

/* Takes the record lock of an entry through a description that outlives every descriptor: a mapping keeps it. */
static bool keep_entry(uint32_t entry, bool *by_descriptor)
{
	off_t byte = ENTRY_TABLE + (off_t)ENTRY_SIZE * entry;
	int fd = open_once_more();
	if (fd < 0)
		return false;
	if (!lock_byte(fd, byte)) {
		close(fd);
		return false;
	}
	void *pin = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
	if (pin != MAP_FAILED && madvise(pin, PAGE, MADV_DONTFORK) == 0) {
		close(fd);
		*by_descriptor = false;
		if (entry_byte_reads_as(entry, F_WRLCK))
			return true;
		munmap(pin, PAGE);
		if ((fd = open_once_more()) < 0)
			return false;
		if (!lock_byte(fd, byte)) {
			close(fd);
			return false;
		}
	}
	*by_descriptor = true;
	return true;
}

static uint64_t inode_of(const char *path)
{
	struct stat file;
	return stat(path, &file) == 0 ? file.st_ino : 0;
}

static bool take_entry(uint32_t entry)
{
	char link[16] = "", command[16] = "", state_letter;
	long threads;
	uint64_t start;
	bool by_descriptor;
	uint64_t *at = entry_at(entry), state = LOAD(at);
	if ((state & 1) && entry_byte_reads_as(entry, F_UNLCK))
		swap(at, state, state - 1);
	if (!keep_entry(entry, &by_descriptor))
		return false;
	state = LOAD(at);
	if (state & 1)
		STORE(at, --state);
	segment.entry = entry;
	segment.generation = (state >> 1) + 1;
	if ((segment.generation & 0x1ffffff) == 0)
		forget_entry(entry);
	/* /proc may be that of another PID namespace. */
	segment.sees_proc = readlink("/proc/self", link, sizeof link - 1) > 0 && atoi(link) == getpid();
	segment.pid_namespace = segment.sees_proc ? inode_of("/proc/self/ns/pid") : 0;
	segment.time_namespace = segment.sees_proc ? inode_of("/proc/self/ns/time") : 0;
	if (!segment.sees_proc || !read_stat("/proc/self/stat", &state_letter, &threads, &start))
		start = 0;
	int comm = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
	if (comm >= 0 && read(comm, command, sizeof command) > 0)
		command[strcspn(command, "\n")] = '\0';
	if (comm >= 0)
		close(comm);
	STORE(at32(ENTRY_TABLE + UINT64_C(64) * entry + 8), (uint32_t)getpid());
	STORE(at32(ENTRY_TABLE + UINT64_C(64) * entry + 12), by_descriptor);
	STORE(at + 2, start);
	STORE(at + 3, segment.pid_namespace);
	STORE(at + 4, segment.time_namespace);
	memcpy(at + 5, command, sizeof command);
	STORE(at, segment.generation << 1 | 1);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return true;
}

static void finish_removal(void)
{
	struct stat file;
	int fd = open_once_more();
	if (fd >= 0 && lock_byte(fd, 0) && lstat(segment.path, &file) == 0 && file.st_dev == segment.device &&
	    file.st_ino == segment.inode)
		unlink(segment.path);
	if (fd >= 0)
		close(fd);
}

static int attach(void)
{
	uint32_t begin = __atomic_fetch_add(at32(ROTOR), 1, __ATOMIC_RELAXED), pages = 0;
	while (pages < ENTRY_PAGES && page_is_usable(pages, false))
		pages++;
	for (; segment.entry == 0; pages++) {
		uint32_t entries = pages * PAGE / ENTRY_SIZE;
		for (uint32_t i = 0; i < entries && segment.entry == 0; i++)
			if ((begin + i) % entries != 0)
				take_entry((begin + i) % entries);
		if (segment.entry == 0 && pages == ENTRY_PAGES)
			return -EUSERS;
		if (segment.entry == 0 && !page_is_usable(pages, true))
			return -ENOSPC;
	}
	if (!LOAD(at32(RETIRED)))
		return 0;
	finish_removal();
	return -ESTALE;
}

static void detach(void)
{
	for (uint32_t place = 0; place < RECORDS; place++) {
		uint64_t *record = at64(RECORD_TABLE + UINT64_C(32) * place);
		if (page_is_usable(ENTRY_PAGES + place * RECORD_SIZE / PAGE, false) && (LOAD(record) & ENTRY) == segment.entry)
			STORE(record, 0);
	}
	STORE(entry_at(segment.entry), segment.generation << 1);
}

/* What this thread writes into words; makes its record first, so that it can be told dead and found waiting. */
static uint64_t own_owner(void)
{
	if (self.owner != 0)
		return self.owner;
	char path[64], state;
	long threads;
	uint64_t start = 0, serial = __atomic_add_fetch(&segment.serials, 1, __ATOMIC_RELAXED);
	uint32_t tid = (uint32_t)syscall(SYS_gettid);
	self.owner = segment.entry | (segment.generation & 0x7fff) << 13 | serial << 32 |
		     (segment.generation >> 15 & 0x3ff) << 54;
	snprintf(path, sizeof path, "/proc/self/task/%u/stat", (unsigned)tid);
	bool known = segment.sees_proc && read_stat(path, &state, &threads, &start);
	self.record = find_record(self.owner, true);
	if (self.record != NULL) {
		STORE(self.record + 1, known ? tid | start << 32 : 0);
		STORE(self.record + 2, 0);
		STORE(self.record, self.owner);
	}
	return self.owner;
}

/* Locks. */

static int unlock_word(uint64_t *word, bool died)
{
	uint64_t seen = LOAD(word), to;
	do {
		if ((seen & OWNER) != own_owner())
			return -EPERM;
		to = died ? D | (seen & W) : seen & S ? R | W : 0;
	} while (!__atomic_compare_exchange_n(word, &seen, to, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
	self.woke = 0;
	for (uint32_t class = to & R ? 16 : 0; class != 0 && self.woke == 0; class /= 2)
		self.woke = wake_one(word, class);
	if ((to & R) && self.woke > 0)
		return 0;
	if (to & R)
		swap(word, R | W, 0);
	if (seen & (S | W))
		self.woke = wake_one(word, FUTEX_BITSET_MATCH_ANY);
	return 0;
}

static void wish_for(uint32_t lock)
{
	if (self.record == NULL)
		return;
	STORE(self.record + 3, now_ns());
	STORE(self.record + 2, (uint64_t)++self.wish << 32 | (lock + 1));
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void take_wish_back(void)
{
	if (self.record != NULL)
		STORE(self.record + 2, (uint64_t)self.wish << 32);
}

struct step { uint64_t lock, owner, wants; };

/* From one's own wish back to oneself; how many steps that takes, or 0. */
static size_t walk(uint32_t lock, struct step *steps)
{
	for (size_t n = 0; n < 8192 && lock < num_locks(); n++) {
		uint64_t word = LOAD(slot(lock)), *record = NULL;
		steps[n] = (struct step){ lock, word & OWNER, 0 };
		if ((word & OWNER) == self.owner)
			return n + 1;
		if ((word & ENTRY) == 0 || (word >> 32 & 0x3fffff) == 0 || !page_is_usable((word & ENTRY) / 64, false) ||
		    !lives_by_state(LOAD(entry_at(word & ENTRY)), word) ||
		    (record = find_record(word & OWNER, false)) == NULL)
			return 0;
		steps[n].wants = LOAD(record + 2);
		if ((uint32_t)steps[n].wants == 0)
			return 0;
		lock = (uint32_t)steps[n].wants - 1;
	}
	return 0;
}

static bool closes_a_cycle(uint32_t lock)
{
	static _Thread_local struct step once[8192], again[8192];
	uint64_t *detector = at64(DETECTOR), seen = LOAD(detector);
	if (!segment.walks || self.record == NULL || walk(lock, once) == 0)
		return false;
	if ((seen & ENTRY) != 0 && !holder_is_dead(seen))
		return false;
	if (!swap(detector, seen, self.owner | (seen & W)))
		return false;
	size_t length = walk(lock, once);
	bool closed = length != 0 && walk(lock, again) == length && memcmp(once, again, length * sizeof *once) == 0;
	if (closed)
		take_wish_back();
	unlock_word(detector, false);
	return closed;
}

/* Until a deadline; 0 tries. */
static int lock_until(uint32_t lock, uint64_t deadline)
{
	uint64_t own = own_owner();
	if (lock >= num_locks())
		return -EINVAL;
	if (LOAD(at32(RETIRED)))
		return -ESTALE;
	uint64_t *word = slot(lock), *note = word + 1, *looked = word + 2, began = now_ns();
	bool slept = false, woken = false, reserved_long = false, wished = false;
	int result;
	for (;;) {
		uint64_t seen = LOAD(word), now = now_ns();
		bool last = now >= deadline, is_reserved = seen & R;
		if ((seen & ENTRY) == 0 && (!is_reserved || woken || reserved_long || last)) {
			/* Who slept cannot know whether others still do: the unlock took W away. */
			if (!swap(word, seen, own | (slept || is_reserved ? W : seen & W)))
				continue;
			result = seen & D ? OWNER_DIED : 0;
			break;
		}
		if ((seen & OWNER) == own) {
			result = deadline == 0 ? -EBUSY : -EDEADLK;
			break;
		}
		uint64_t last_look = LOAD(looked);
		/* Of many that wait, one looks; the difference is large, too, where the other clock is ahead. */
		if ((seen & ENTRY) != 0 && (last || (slept && now - last_look >= SLICE && swap(looked, last_look, now))) &&
		    holder_is_dead(seen)) {
			if (!swap(word, seen, own | W))
				continue;
			result = OWNER_DIED;
			break;
		}
		result = last ? deadline == 0 ? -EBUSY : -ETIMEDOUT : LOAD(at32(RETIRED)) ? -ESTALE : 0;
		if (result != 0)
			break;
		if (slept && !wished) {
			wish_for(lock);
			wished = true;
		}
		if (wished && closes_a_cycle(lock)) {
			result = -EDEADLK;
			break;
		}
		uint64_t starves = (seen & ENTRY) != 0 && now - began >= 2 * MILLISECOND ? S : 0, waits = seen | W | starves;
		if (waits != seen && !swap(word, seen, waits))
			continue;
		uint64_t count = LOAD(note), end = now + (slept ? SLICE : 2 * MILLISECOND);
		int error = sleep_on(word, waits, end < deadline ? end : deadline, classes_after(now - began));
		slept = true;
		self.was_woken = woken = error == 0;
		reserved_long = error == ETIMEDOUT && (waits & R) && LOAD(note) == count;
	}
	if (result >= 0) {
		/* The count has no upper bits to spill into, and the holder alone writes here. */
		STORE(note, ((LOAD(note) >> 16) + 1) << 16);
		if (LOAD(at32(RETIRED))) {
			unlock_word(word, result == OWNER_DIED);
			result = -ESTALE;
		}
	} else if (woken) {
		wake_one(word, FUTEX_BITSET_MATCH_ANY);
	}
	if (wished)
		take_wish_back();
	return result;
}

static int unlock(uint32_t lock)
{
	return lock < num_locks() ? unlock_word(slot(lock), false) : -EINVAL;
}

/* Allocation and growing. */

static int free_lock(uint32_t lock)
{
	if (lock >= num_locks())
		return -EINVAL;
	uint64_t bit = UINT64_C(1) << lock % 64;
	uint64_t was = __atomic_fetch_and(at64(segment.bitmap) + lock / 64, ~bit, __ATOMIC_ACQ_REL);
	if (!(was & bit))
		return -ENOENT;
	if (was == UINT64_MAX)
		__atomic_fetch_and(at64(SUMMARY) + lock / 4096, ~(UINT64_C(1) << lock / 64 % 64), __ATOMIC_SEQ_CST);
	__atomic_fetch_add(at64(FREES), 1, __ATOMIC_SEQ_CST);
	return 0;
}

/* Reads every word, which it must in the end, and keeps the summary for those who do not. */
static int allocate_lock(void)
{
	for (uint64_t frees = LOAD(at64(FREES)), before = ~frees; frees != before; before = frees, frees = LOAD(at64(FREES)))
		for (uint32_t i = 0; i < num_locks() / 64; i++) {
			uint64_t *word = at64(segment.bitmap) + i, *summary = at64(SUMMARY) + i / 64, seen = LOAD(word);
			uint64_t full = UINT64_C(1) << i % 64;
			int bit = 0;
			while (seen != UINT64_MAX && !swap(word, seen, seen | UINT64_C(1) << (bit = __builtin_ctzll(~seen))))
				seen = LOAD(word);
			if (seen == UINT64_MAX)
				continue;
			if ((seen | UINT64_C(1) << bit) == UINT64_MAX) {
				__atomic_fetch_or(summary, full, __ATOMIC_SEQ_CST);
				if (__atomic_load_n(word, __ATOMIC_SEQ_CST) != UINT64_MAX)
					__atomic_fetch_and(summary, ~full, __ATOMIC_SEQ_CST);
			}
			return (int)(i * 64) + bit;
		}
	return -ENOLCK;
}

static int grow(uint32_t locks)
{
	uint32_t now = LOAD(at32(NUM_LOCKS));
	if (locks % 64 != 0 || locks < now || locks > segment.max_locks)
		return -EINVAL;
	if (fallocate(segment.asker, 0, SUMMARY, (locks / 64 + 63) / 64 * 8) != 0 ||
	    fallocate(segment.asker, 0, (off_t)segment.bitmap, locks / 8) != 0 ||
	    fallocate(segment.asker, 0, (off_t)segment.slots, (off_t)locks * 64) != 0)
		return -errno;
	while (now < locks &&
	       !__atomic_compare_exchange_n(at32(NUM_LOCKS), &now, locks, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED))
		;
	return 0;
}

/* Commands. */

static struct scores *scores;

struct task {
	uint32_t first, locks, rounds;
	int result;
};

/* Takes locks in turn and writes scores; the result says how often somebody else was inside, or what failed. */
static void *write_scores(void *argument)
{
	struct task *task = argument;
	for (uint32_t round = 0; round < task->rounds && task->result >= 0 && !scores->stop; round++) {
		uint32_t lock = task->first + round % task->locks;
		int taken = lock_until(lock, FOR_EVER);
		if (taken >= 0) {
			task->result += (int)write_score(&scores->of[lock % SCORED_LOCKS], taken == OWNER_DIED,
							 (uint32_t)syscall(SYS_gettid));
			taken = unlock(lock);
		}
		if (taken < 0)
			task->result = taken;
	}
	/* Whoever ends leaves no record behind. */
	if (self.record != NULL)
		STORE(self.record, 0);
	self.owner = 0;
	self.record = NULL;
	return NULL;
}

static int count(uint32_t first, uint32_t locks, uint32_t rounds, uint32_t threads)
{
	struct task tasks[16];
	pthread_t ids[16];
	int result = 0;
	if (locks == 0 || threads > 16)
		return -EINVAL;
	for (uint32_t i = 0; i < threads; i++) {
		tasks[i] = (struct task){ first, locks, rounds, 0 };
		if (pthread_create(&ids[i], NULL, write_scores, &tasks[i]) != 0)
			abort();
	}
	for (uint32_t i = 0; i < threads; i++) {
		pthread_join(ids[i], NULL);
		result = tasks[i].result < 0 ? tasks[i].result : result + tasks[i].result;
	}
	return result;
}

static int obey(const char *command, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
	if (strcmp(command, "lock") == 0)
		return lock_until(a, FOR_EVER);
	if (strcmp(command, "timed") == 0)
		return lock_until(a, now_ns() + b * MILLISECOND);
	if (strcmp(command, "try") == 0)
		return lock_until(a, 0);
	if (strcmp(command, "unlock") == 0)
		return unlock(a);
	if (strcmp(command, "count") == 0)
		return count(a, b, c, d);
	if (strcmp(command, "allocate") == 0)
		return allocate_lock();
	if (strcmp(command, "free") == 0)
		return free_lock(a);
	if (strcmp(command, "grow") == 0)
		return grow(a);
	if (strcmp(command, "was-woken") == 0)
		return self.was_woken;
	if (strcmp(command, "woke") == 0)
		return self.woke;
	if (strcmp(command, "walks") == 0)
		return segment.walks = a != 0;
	return -ENOSYS;
}

int main(int arguments, char **argument)
{
	char line[128], command[16];
	if (arguments != 3)
		return 2;
	scores = mmap(NULL, sizeof *scores, PROT_READ | PROT_WRITE, MAP_SHARED, atoi(argument[2]), 0);
	if (scores == MAP_FAILED)
		return 2;
	int result = open_segment(argument[1]);
	if (result == 0)
		result = attach();
	printf("%d\n", result);
	fflush(stdout);
	while (result == 0 && fgets(line, sizeof line, stdin) != NULL) {
		unsigned number[4] = { 0 };
		if (sscanf(line, "%15s %u %u %u %u", command, &number[0], &number[1], &number[2], &number[3]) < 1)
			return 2;
		printf("%d\n", obey(command, number[0], number[1], number[2], number[3]));
		fflush(stdout);
	}
	if (result == 0)
		detach();
	return 0;
}
