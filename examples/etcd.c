/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * A register that several machines change under one lock in etcd. A lease is no mutex: a holder that was paused may run on
 * while another has the lock. So the register checks the fencing token of each write. `make demo-etcd` shows it.
 *
 *     etcd ADDRESS HOST REGISTER        locks, adds 1 to the register, unlocks
 *     etcd ADDRESS HOST REGISTER hold   locks, says so, and waits to be killed
 *     etcd ADDRESS HOST REGISTER pause  locks, reads the register, stops itself, and writes when it is continued
 *
 *     cc examples/etcd.c $(pkg-config --cflags --libs lock_manager_etcd) -o etcd
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <lock_manager_etcd.h>

enum { NUM_LOCKS = 64, LOCK = 7, TTL_SECONDS = 2 };

static const char *host;

static void fail(const char *doing, const char *why)
{
    printf("  %s: %s: %s\n", host, doing, why);
    exit(EXIT_FAILURE);
}

/* A negative value is a failure. A positive value that the caller does not know is a success. */
static int32_t must(int32_t code, const char *doing)
{
    if (code < 0)
        fail(doing, lock_manager_last_error());
    return code;
}

/* What the lock protects: a number, and the highest token that has changed it. It could be a disk or a database. */
struct content {
    uint64_t token;
    long value;
};

/* The resource's side. It decides by the token alone, and reads count as well: what was read under a lower token must not be
 * written after it. flock makes the check and the change one step. Returns 0 if the request is refused. */
static int request(int file, uint64_t token, long *value, int is_write)
{
    struct content content = { 0, 0 };
    int is_refused;
    if (flock(file, LOCK_EX) != 0 || pread(file, &content, sizeof content, 0) < 0)
        fail("a request to the register", "flock");
    is_refused = token < content.token;
    if (!is_refused) {
        content.token = token;
        if (is_write)
            content.value = *value;
        *value = content.value;
        if (pwrite(file, &content, sizeof content, 0) != (ssize_t)sizeof content)
            fail("a request to the register", "pwrite");
    }
    flock(file, LOCK_UN);
    return !is_refused;
}

int main(int argc, char **argv)
{
    lock_manager_etcd_options_t options = { .size = sizeof options, .ttl_seconds = TTL_SECONDS, .patience_seconds = 30 };
    lock_manager_t *manager;
    uint64_t token;
    int32_t code, lost;
    long value = 0;
    int file;

    if (argc < 4) {
        fprintf(stderr, "usage: etcd etcd://host:port,host:port/prefix HOST REGISTER [hold | pause]\n");
        return EXIT_FAILURE;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    /* The demo's hosts are on one machine, so they are told apart by name. Leave it out otherwise. */
    options.host = host = argv[2];
    file = open(argv[3], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0)
        fail("opening the register", argv[3]);

    must(lock_manager_open_etcd(argv[1], NUM_LOCKS, &options, &manager), "opening the locks");
    code = must(lock_manager_lock(manager, LOCK), "locking");
    must(lock_manager_fencing_token(manager, LOCK, &token), "reading the token");
    must(lock_manager_lost_fd(manager, &lost), "asking for the descriptor");
    printf("  %s: holds lock %d%s\n", host, LOCK,
           code == LOCK_MANAGER_OWNER_DIED ? ", and was told that its last holder died" : "");

    if (argc > 4 && strcmp(argv[4], "hold") == 0)
        pause();
    if (!request(file, token, &value, 0))
        fail("reading the register", "a higher token has been there");
    if (argc > 4 && strcmp(argv[4], "pause") == 0) {
        printf("  %s: read %ld, and is paused\n", host, value);
        raise(SIGSTOP);
        printf("  %s: runs on. Its descriptor says that the lock is %s\n", host,
               poll(&(struct pollfd){ .fd = lost, .events = POLLIN }, 1, 0) > 0 ? "lost" : "held");
    }
    /* A program would look at the descriptor here, and stop. This one writes, to show what the token is for. */
    value++;
    if (request(file, token, &value, 1))
        printf("  %s: wrote %ld\n", host, value);
    else
        printf("  %s: its write of %ld was refused: a higher token has been there\n", host, value);

    code = lock_manager_unlock(manager, LOCK);
    if (code == LOCK_MANAGER_LOST)
        printf("  %s: unlock says: %s\n", host, lock_manager_last_error());
    else
        must(code, "unlocking");
    return lock_manager_close(manager) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
