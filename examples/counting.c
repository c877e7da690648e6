/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Several processes count in one record under one lock. One of them is killed while it holds the lock and the record is
 * half written. The next holder is told and repairs the record, and the final count is right.
 *
 *     cc examples/counting.c $(pkg-config --cflags --libs lock_manager) -o counting && ./counting
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <lock_manager.h>

enum { PROCESSES = 4, ADDITIONS = 50000, VICTIM = 1, FATAL_ADDITION = 25000 };

/* The record is whole if total is the sum of the parts. Only the holder of the lock may read or write it. */
struct record {
    unsigned long total;
    unsigned long parts[PROCESSES];
};

static struct record *record;
static lock_manager_t *manager;
static uint32_t lock_id;
static char segment[64];
static pid_t maker;

/* Called by atexit. Children inherit the registration, and must not remove the segment. */
static void remove_segment(void)
{
    if (getpid() == maker && lock_manager_remove_shm(segment) < 0)
        fprintf(stderr, "counting: %s\n", lock_manager_last_error());
}

static void fail(const char *doing, const char *why)
{
    fprintf(stderr, "counting: %s: %s\n", doing, why);
    exit(EXIT_FAILURE);
}

/* A negative value is a failure. A positive value that the caller does not know is a success. */
static int32_t must(int32_t code, const char *doing)
{
    if (code < 0)
        fail(doing, lock_manager_last_error());
    return code;
}

static unsigned long sum_of_parts(void)
{
    unsigned long sum = 0;
    for (int i = 0; i < PROCESSES; i++)
        sum += record->parts[i];
    return sum;
}

/* Takes the lock, and repairs the record if the last holder died. */
static void enter(const char *who)
{
    if (must(lock_manager_lock(manager, lock_id), "lock") != LOCK_MANAGER_OWNER_DIED)
        return;
    unsigned long found = record->total;
    record->total = sum_of_parts();
    printf("%s is told that the last holder died, and repairs the total: %lu -> %lu\n", who, found, record->total);
}

static void leave(void)
{
    must(lock_manager_unlock(manager, lock_id), "unlock");
}

/* Continues to count from its part of the record. */
static void count(int number, int dies)
{
    char who[32];
    snprintf(who, sizeof who, "process %d", number);
    for (;;) {
        enter(who);
        if (record->parts[number] == ADDITIONS) {
            leave();
            return;
        }
        record->total++;
        /* Here the record is half written. The compiler must have stored the total, because the call might read it. */
        if (dies && record->parts[number] == FATAL_ADDITION - 1)
            raise(SIGSTOP);
        record->parts[number]++;
        leave();
    }
}

/* The child holds none of the locks that its parent holds. */
static pid_t start(int number, int dies)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0)
        fail("fork", strerror(errno));
    if (pid == 0) {
        /* Otherwise, if the starter failed, the stopped victim would stay behind. */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        count(number, dies);
        fflush(stdout);
        _exit(EXIT_SUCCESS);
    }
    return pid;
}

static int wait_for(pid_t pid, int flags)
{
    int status;
    while (waitpid(pid, &status, flags) < 0)
        if (errno != EINTR)
            fail("waitpid", strerror(errno));
    return status;
}

/* The victim has stopped in the middle of an addition. Print who holds the lock and what is in the record, then kill it. */
static void kill_holder(pid_t victim)
{
    lock_manager_lock_info_t info = { .size = sizeof info };

    if (!WIFSTOPPED(wait_for(victim, WUNTRACED)))
        fail("process to be killed", "it ended by itself");
    must(lock_manager_lock_info(manager, lock_id, &info), "lock_info");
    printf("pid %d holds lock %u and is killed: ", (int)info.pid, (unsigned)lock_id);
    printf("total %lu, sum of the parts %lu\n", record->total, sum_of_parts());
    fflush(stdout);
    if (info.pid != victim || kill(info.pid, SIGKILL) != 0)
        fail("kill", "the lock is held by somebody else");
    if (!WIFSIGNALED(wait_for(victim, 0)))
        fail("process to be killed", "it survived");
}

int main(void)
{
    pid_t pids[PROCESSES];
    int sound = 1;

    setvbuf(stdout, NULL, _IOLBF, 0);
    record = mmap(NULL, sizeof *record, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (record == MAP_FAILED)
        fail("mmap", strerror(errno));

    maker = getpid();
    snprintf(segment, sizeof segment, "/lock-manager-counting-%ld", (long)maker);
    must(lock_manager_new_shm(segment, 32, NULL, &manager), "new_shm");
    atexit(remove_segment);
    must(lock_manager_allocate_lock(manager, &lock_id), "allocate_lock");
    printf("%d processes add 1 to a shared record %d times each, under lock %u of %s\n", PROCESSES, ADDITIONS,
           (unsigned)lock_id, segment);

    /* The starter holds the lock until all processes exist, so that they start together. */
    enter("the starter");
    for (int i = 0; i < PROCESSES; i++)
        pids[i] = start(i, i == VICTIM);
    leave();

    kill_holder(pids[VICTIM]);
    printf("process %d is started again and continues from %lu\n", VICTIM, record->parts[VICTIM]);
    pids[VICTIM] = start(VICTIM, 0);
    for (int i = 0; i < PROCESSES; i++)
        if (wait_for(pids[i], 0) != 0)
            sound = 0;

    enter("the starter");
    sound = sound && record->total == (unsigned long)PROCESSES * ADDITIONS && record->total == sum_of_parts();
    printf("%s: total %lu, sum of the parts %lu, expected %d\n", sound ? "right" : "WRONG", record->total,
           sum_of_parts(), PROCESSES * ADDITIONS);
    leave();

    must(lock_manager_free_lock(manager, lock_id), "free_lock");
    must(lock_manager_close(manager), "close");
    return sound ? EXIT_SUCCESS : EXIT_FAILURE;
}
