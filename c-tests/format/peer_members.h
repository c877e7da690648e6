// SPDX-License-Identifier: MIT OR Apache-2.0
/* Of peer.c: who uses a segment, in which entry and with which thread records, and who lives. */
#ifndef FORMAT_PEER_MEMBERS_H
#define FORMAT_PEER_MEMBERS_H

#include "peer_segment.h"

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
		if (swap(record, key, owner | WAITERS))
			return record;
	}
	return NULL;
}

/* In the caller's PID namespace: a thread, or a process where tid is 0. It had started by that time; 0 is not known. */
static bool never_runs_again(int pid, int tid, uint64_t started_by, bool is_low_half)
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
	if (started_by != 0 && is_low_half && (int32_t)((uint32_t)began - (uint32_t)started_by) > 0)
		return true;
	if (started_by != 0 && !is_low_half && began > started_by)
		return true;
	/* A process whose main thread has ended may live on in its others. */
	return (state == 'Z' || state == 'X') && (tid || threads <= 1);
}

/* Whether the holder that a word names is dead; `word` was read before. */
static bool holder_is_dead(uint64_t word)
{
	uint32_t entry = word & ENTRY;
	if (entry == 0)
		return false;
	/* Where nobody ever was, nobody lives; where one cannot look, somebody may. */
	if (!page_is_usable(entry / 64, false))
		return !page_is_ready(entry / 64);
	uint64_t *state = entry_at(entry), seen = LOAD(state);
	if (!lives_by_state(seen, word))
		return true;
	if (entry_byte_reads_as(entry, F_UNLCK) && entry_byte_reads_as(segment.entry, F_WRLCK) &&
	    entry_byte_reads_as(entry, F_UNLCK)) {
		swap(state, seen, seen - 1);
		return true;
	}
	if (segment.pid_namespace == 0 || LOAD(state + 3) != segment.pid_namespace)
		return false;
	uint32_t pid = LOAD(at32(ENTRY_TABLE + UINT64_C(64) * entry + 8)), tid = 0;
	uint64_t started_by = LOAD(state + 2);
	uint64_t *record = word >> 32 & 0x3fffff ? find_record(word & OWNER, false) : NULL;
	if (record != NULL) {
		uint64_t thread = LOAD(record + 1);
		tid = (uint32_t)thread;
		started_by = thread >> 32;
	}
	if (pid == 0 || (record != NULL && tid == 0))
		return false;
	/* Each time namespace has times of its own. */
	if (segment.time_namespace == 0 || LOAD(state + 4) != segment.time_namespace)
		started_by = 0;
	/* Who was asked about was the holder all the while. */
	return never_runs_again((int)pid, (int)tid, started_by, record != NULL) && LOAD(state) == seen &&
	       (record == NULL || LOAD(record) == (word & OWNER));
}

/* Attaching. */

/* What the sweeps of the document's tables look for: what names an entry, or one owner alone. */
struct sweep { uint64_t mask, named; };

static bool names(struct sweep sweep, uint64_t seen)
{
	return (seen & ENTRY) != 0 && (seen & sweep.mask) == sweep.named;
}

static void sweep_word(uint64_t *word, struct sweep sweep)
{
	uint64_t seen = LOAD(word);
	for (; names(sweep, seen); seen = LOAD(word)) {
		/* Without an owner: readers may be in. */
		uint64_t to = segment.has_cells && (seen & RESERVED) ? STARVING | (seen & OWNER_DIED) : OWNER_DIED;
		if (swap(word, seen, to | (seen & WAITERS)))
			break;
	}
	if (names(sweep, seen) && (seen & WAITERS))
		wake_any(word);
}

static void sweep_cell(uint64_t *cell, struct sweep sweep)
{
	uint64_t seen = LOAD(cell);
	while (names(sweep, seen) && !swap(cell, seen, 0))
		seen = LOAD(cell);
	if (names(sweep, seen) && (seen & WAITERS))
		wake_all(cell, FUTEX_BITSET_MATCH_ANY);
}

static void sweep_locks(struct sweep sweep)
{
	sweep_word(at64(DETECTOR), sweep);
	for (uint32_t lock = 0; lock < num_locks(); lock++) {
		sweep_word(slot(lock), sweep);
		for (uint32_t cell = 0; segment.has_cells && cell < SLOT_CELLS; cell++)
			sweep_cell(slot(lock) + 3 + cell, sweep);
	}
	for (uint32_t place = 0; segment.has_cells && place < TABLE_CELLS; place++)
		if (page_is_usable(CELL_PAGES + place * CELL_SIZE / PAGE, false))
			sweep_cell(at64(CELL_TABLE + UINT64_C(16) * place), sweep);
}

/* Generations begin again: words of long ago must not name the one that comes. */
static void forget_entry(uint32_t entry)
{
	sweep_locks((struct sweep){ ENTRY, entry });
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
	memcpy(at + 5, command, sizeof command);
	STORE(at + 4, segment.time_namespace);
	/* Last of these: whoever finds it set believes the rest. */
	STORE(at + 3, segment.pid_namespace);
	STORE(at, segment.generation << 1 | 1);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return true;
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
	/* A remover that is at work may have seen nobody here. */
	while (LOAD(at32(RETIRED)) == REMOVING && !is_removed() && is_locked(segment.asker, 0, 1))
		usleep(1000);
	return is_removed() ? -ESTALE : 0;
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
		STORE(self.record + 1, tid | (known ? start << 32 : 0));
		STORE(self.record + 2, 0);
		STORE(self.record, self.owner);
	}
	return self.owner;
}

/* Whom a held lock names: the thread or the process. What is only on the way to it names the thread. */
static uint64_t holder(void)
{
	return own_owner() & (segment.by_process ? ~(UINT64_C(0x3fffff) << 32) : UINT64_MAX);
}

/* With whatever it holds. */
static void thread_ends(void)
{
	if (self.owner != 0)
		sweep_locks((struct sweep){ OWNER, self.owner });
	if (self.record != NULL) {
		STORE(self.record + 2, 0);
		STORE(self.record, 0);
	}
	self.owner = 0;
	self.record = NULL;
}

#endif
