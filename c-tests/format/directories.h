// SPDX-License-Identifier: MIT OR Apache-2.0
/* Of host.c: the library and the peer take locks of one directory, beside somebody who only knows record locks. */
#ifndef FORMAT_DIRECTORIES_H
#define FORMAT_DIRECTORIES_H

struct place {
	char name[NAME_SIZE], table[NAME_SIZE + sizeof "/.lock_manager"], file[2 * NAME_SIZE];
	lock_manager_t *manager;
};

/* With a file for lock 0, and none for the others. */
static struct place new_directory(void)
{
	struct place place;
	uint32_t id = 1;
	snprintf(place.name, sizeof place.name, "%s", new_name());
	snprintf(place.table, sizeof place.table, "%s/.lock_manager", place.name);
	REQUIRE(lock_manager_new_file(file_of(place.name), &place.manager) == 0);
	REQUIRE(lock_manager_allocate_lock(place.manager, &id) == 0 && id == 0);
	snprintf(place.file, sizeof place.file, "%s/0", file_of(place.name));
	return place;
}

static void remove_directory(struct place *place)
{
	CHECK_INT(lock_manager_close(place->manager), 0);
	CHECK_INT(lock_manager_remove_file(file_of(place->name)), 0);
}

/* Who has a record lock on lock 0's file, as another process is told; 0: nobody. */
static pid_t record_holder(const struct place *place)
{
	pid_t holder = 0;
	int answer[2];
	REQUIRE(pipe(answer) == 0);
	pid_t child = fork_child();
	if (child == 0) {
		struct flock record = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
		int file = open(place->file, O_RDWR | O_CLOEXEC);
		REQUIRE(file >= 0 && fcntl(file, F_GETLK, &record) == 0);
		holder = record.l_type == F_UNLCK ? 0 : record.l_pid;
		REQUIRE(write(answer[1], &holder, sizeof holder) == sizeof holder);
		end_child();
	}
	REQUIRE(read(answer[0], &holder, sizeof holder) == sizeof holder);
	check_child_ended_well(child);
	close(answer[0]);
	close(answer[1]);
	return holder;
}

static void a_lock_of_a_directory_is_a_word_and_a_record_lock_for_both(void)
{
	struct place place = new_directory();
	struct peer peer = attach_peer(place.table);
	CHECK_INT(ask(peer, "lock 0"), 0);
	CHECK_INT(record_holder(&place), peer.pid);
	lock_manager_lock_info_t info = info_of(place.manager, 0);
	CHECK_INT(info.held, 1);
	CHECK_INT(info.pid, peer.pid);
	CHECK_INT(lock_manager_try_lock(place.manager, 0), -EBUSY);
	CHECK_INT(ask(peer, "unlock 0"), 0);
	CHECK_INT(record_holder(&place), 0);
	CHECK_INT(lock_manager_lock(place.manager, 0), 0);
	CHECK_INT(record_holder(&place), getpid());
	CHECK_INT(ask(peer, "try 0"), -EBUSY);
	CHECK_INT(ask(peer, "timed 0 20"), -ETIMEDOUT);
	CHECK_INT(lock_manager_unlock(place.manager, 0), 0);
	CHECK_INT(record_holder(&place), 0);
	/* Without a file there is the word alone. */
	CHECK_INT(ask(peer, "lock 1"), 0);
	CHECK_INT(lock_manager_try_lock(place.manager, 1), -EBUSY);
	CHECK_INT(ask(peer, "unlock 1"), 0);
	end_peer(peer);
	remove_directory(&place);
}

/* Somebody who knows record locks alone, as libpod does, and has lock 0 by now; until he is told that it is over. */
static pid_t fork_stranger(const struct place *place, struct signpost held, struct signpost over)
{
	pid_t child = fork_child();
	if (child == 0) {
		struct flock record = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
		int file = open(place->file, O_RDWR | O_CLOEXEC);
		REQUIRE(file >= 0 && fcntl(file, F_SETLK, &record) == 0);
		say(held);
		await(over);
		end_child();
	}
	await(held);
	return child;
}

static void what_has_only_a_record_lock_keeps_both_out(void)
{
	struct place place = new_directory();
	struct peer peer = attach_peer(place.table);
	struct signpost held = new_signpost(), over = new_signpost();
	pid_t child = fork_stranger(&place, held, over);
	CHECK_INT(ask(peer, "try 0"), -EBUSY);
	CHECK_INT(lock_manager_try_lock(place.manager, 0), -EBUSY);
	CHECK_INT(ask(peer, "timed 0 20"), -ETIMEDOUT);
	CHECK_INT(lock_manager_timed_lock(place.manager, 0, 20 * MILLISECOND_NS), -ETIMEDOUT);
	say(over);
	check_child_ended_well(child);
	/* Neither has kept the word. */
	CHECK_INT(ask(peer, "try 0"), 0);
	CHECK_INT(ask(peer, "unlock 0"), 0);
	CHECK_INT(lock_manager_try_lock(place.manager, 0), 0);
	CHECK_INT(lock_manager_unlock(place.manager, 0), 0);
	close_signpost(held);
	close_signpost(over);
	end_peer(peer);
	remove_directory(&place);
}

static void readers_of_a_directory_have_the_record_lock_for_reading(void)
{
	struct place place = new_directory();
	struct peer peer = attach_peer(place.table), other = attach_program(other_program, place.table);
	CHECK_INT(ask(peer, "share 0"), 0);
	CHECK_INT(record_holder(&place), peer.pid);
	CHECK_INT(lock_manager_try_lock(place.manager, 0), -EBUSY);
	CHECK_INT(lock_manager_lock_shared(place.manager, 0), 0);
	CHECK_INT(ask(peer, "unshare 0"), 0);
	CHECK_INT(record_holder(&place), getpid());
	CHECK_INT(ask(peer, "try 0"), -EBUSY);
	/* It is the process's: the last of its readers gives it back. */
	CHECK_INT(ask(other, "readers 0 5"), 5);
	CHECK_INT(ask(other, "share-try 0"), 0);
	CHECK_INT(lock_manager_unlock_shared(place.manager, 0), 0);
	CHECK_INT(ask(other, "unshare 0"), 0);
	CHECK_INT(record_holder(&place), other.pid);
	CHECK_INT(ask(other, "readers-leave"), 0);
	CHECK_INT(record_holder(&place), 0);
	/* What a writer has when it becomes a reader, lets readers in. */
	CHECK_INT(ask(peer, "lock 0"), 0);
	CHECK_INT(lock_manager_try_lock_shared(place.manager, 0), -EBUSY);
	CHECK_INT(ask(peer, "downgrade 0"), 0);
	CHECK_INT(lock_manager_try_lock_shared(place.manager, 0), 0);
	CHECK_INT(ask(peer, "unshare 0"), 0);
	CHECK_INT(lock_manager_unlock_shared(place.manager, 0), 0);
	CHECK_INT(lock_manager_lock(place.manager, 0), 0);
	CHECK_INT(lock_manager_downgrade_lock(place.manager, 0), 0);
	CHECK_INT(ask(peer, "share-try 0"), 0);
	/* A reader of one that is killed is told to nobody. */
	kill_peer(peer);
	CHECK_INT(lock_manager_unlock_shared(place.manager, 0), 0);
	CHECK_INT(ask(other, "lock 0"), 0);
	CHECK_INT(record_holder(&place), other.pid);
	end_peer(other);
	remove_directory(&place);
}

static void readers_of_a_directory_wait_for_what_has_only_a_record_lock(void)
{
	struct place place = new_directory();
	struct peer peer = attach_peer(place.table);
	struct signpost held = new_signpost(), over = new_signpost();
	pid_t child = fork_stranger(&place, held, over);
	CHECK_INT(ask(peer, "share-try 0"), -EBUSY);
	CHECK_INT(lock_manager_try_lock_shared(place.manager, 0), -EBUSY);
	CHECK_INT(ask(peer, "share-timed 0 20"), -ETIMEDOUT);
	CHECK_INT(lock_manager_timed_lock_shared(place.manager, 0, 20 * MILLISECOND_NS), -ETIMEDOUT);
	/* Neither has kept its cell. */
	CHECK_INT(ask(peer, "unshare 0"), -EPERM);
	CHECK_INT(lock_manager_unlock_shared(place.manager, 0), -EPERM);
	tell(peer, "share 0");
	say(over);
	check_child_ended_well(child);
	CHECK_INT(answer(peer), 0);
	/* And it keeps out who knows record locks alone. */
	CHECK_INT(record_holder(&place), peer.pid);
	CHECK_INT(ask(peer, "unshare 0"), 0);
	CHECK_INT(lock_manager_try_lock(place.manager, 0), 0);
	CHECK_INT(lock_manager_unlock(place.manager, 0), 0);
	close_signpost(held);
	close_signpost(over);
	end_peer(peer);
	remove_directory(&place);
}

static void no_increment_under_a_lock_of_a_directory_is_lost(void)
{
	enum { LIBRARY = 2, LOCKS = 3, ROUNDS = 3000, IN_PEERS = 2 };
	struct place place = new_directory();
	struct peer peer = attach_peer(place.table), other = attach_program(other_program, place.table);
	pid_t children[LIBRARY];
	memset(scores, 0, sizeof *scores);
	tell(peer, "count 0 3 3000 1");
	tell(other, "count 0 3 3000 1");
	for (int i = 0; i < LIBRARY; i++)
		children[i] = fork_scorer(place.manager, LOCKS, ROUNDS);
	CHECK_INT(answer(peer), 0);
	CHECK_INT(answer(other), 0);
	for (int i = 0; i < LIBRARY; i++)
		check_child_ended_well(children[i]);
	for (uint32_t lock = 0; lock < LOCKS; lock++)
		CHECK_INT(scores->of[lock].count, (LIBRARY + IN_PEERS) * ROUNDS / LOCKS);
	end_peer(peer);
	end_peer(other);
	remove_directory(&place);
}

static void a_killed_peers_lock_of_a_directory_is_told_of(void)
{
	struct place place = new_directory();
	struct peer peer = attach_peer(place.table);
	CHECK_INT(ask(peer, "lock 0"), 0);
	kill_peer(peer);
	CHECK_INT(lock_manager_lock(place.manager, 0), LOCK_MANAGER_OWNER_DIED);
	CHECK_INT(record_holder(&place), getpid());
	CHECK_INT(lock_manager_unlock(place.manager, 0), 0);
	remove_directory(&place);
}

#endif
