/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Looks at a segment without touching it, and prints its size, the allocated locks, the held locks with their holders, and
 * the locks whose holder died. Or holds one of its locks while a command runs.
 *
 *     cc examples/segment.c $(pkg-config --cflags --libs lock_manager) -o segment
 *     ./segment /libpod_lock
 *     ./segment /libpod_lock hold 3 sleep 60
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <lock_manager.h>

/* A negative value is a failure. A positive value that the caller does not know is a success. */
static int32_t must(int32_t code)
{
    if (code < 0) {
        fprintf(stderr, "segment: %s\n", lock_manager_last_error());
        exit(EXIT_FAILURE);
    }
    return code;
}

static const char *layout_name(uint32_t layout)
{
    switch (layout) {
    case LOCK_MANAGER_LAYOUT_LIBPOD:
        return "libpod";
    case LOCK_MANAGER_LAYOUT_NATIVE:
        return "native";
    default:
        return "unknown";
    }
}

static void print_holder(const lock_manager_lock_info_t *info)
{
    char path[64], name[32] = "?\n";

    printf("  lock %u is held", (unsigned)info->id);
    if (info->pid == 0) {
        puts(" by a process that cannot be seen from here");
        return;
    }
    snprintf(path, sizeof path, "/proc/%d/comm", (int)info->pid);
    FILE *comm = fopen(path, "r");
    if (comm != NULL) {
        if (fgets(name, sizeof name, comm) == NULL)
            strcpy(name, "?\n");
        fclose(comm);
    }
    name[strcspn(name, "\n")] = '\0';
    printf(" by pid %d (%s)\n", (int)info->pid, name);
}

/* Prints ranges, because a host may have thousands of locks. */
static void print_allocated(lock_manager_t *manager, uint32_t num_locks)
{
    uint32_t first = 0;
    int inside = 0;
    const char *separator = "  allocated: ";

    for (uint32_t id = 0; id <= num_locks; id++) {
        lock_manager_lock_info_t info = { .size = sizeof info };
        if (id < num_locks)
            must(lock_manager_lock_info(manager, id, &info));
        if (info.allocated && !inside)
            first = id;
        if (!info.allocated && inside) {
            printf("%s%u", separator, (unsigned)first);
            if (id - first > 1)
                printf("-%u", (unsigned)(id - 1));
            separator = ", ";
        }
        inside = info.allocated != 0;
    }
    puts(separator[0] == ',' ? "" : "  no lock is allocated");
}

static void look(const char *path)
{
    lock_manager_t *manager;
    lock_manager_info_t segment = { .size = sizeof segment };
    uint32_t available;

    must(lock_manager_open_shm_read_only(path, &manager));
    must(lock_manager_info(manager, &segment));
    must(lock_manager_available_locks(manager, &available));
    printf("%s: %s layout, %u locks, %u available\n", path, layout_name(segment.layout), (unsigned)segment.num_locks,
           (unsigned)available);
    print_allocated(manager, segment.num_locks);
    for (uint32_t id = 0; id < segment.num_locks; id++) {
        lock_manager_lock_info_t info = { .size = sizeof info };
        must(lock_manager_lock_info(manager, id, &info));
        if (info.held)
            print_holder(&info);
        if (info.owner_died)
            printf("  lock %u: its last exclusive holder died, and the next holder is told\n", (unsigned)id);
    }
    must(lock_manager_close(manager));
}

/* The lock belongs to the thread that took it. So the command runs in a child, which holds nothing. */
static int run(char **command)
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        execvp(command[0], command);
        fprintf(stderr, "segment: %s: %s\n", command[0], strerror(errno));
        _exit(127);
    }
    while (pid >= 0 && waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            pid = -1;
    if (pid < 0) {
        fprintf(stderr, "segment: %s: %s\n", command[0], strerror(errno));
        return EXIT_FAILURE;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int hold(const char *path, const char *number, char **command)
{
    lock_manager_t *manager;
    char *end;
    unsigned long id = strtoul(number, &end, 10);

    if (number[0] < '0' || number[0] > '9' || *end != '\0' || id > UINT32_MAX) {
        fprintf(stderr, "segment: %s is not the number of a lock\n", number);
        return EXIT_FAILURE;
    }
    must(lock_manager_open_shm(path, 0, &manager));
    if (must(lock_manager_lock(manager, (uint32_t)id)) == LOCK_MANAGER_OWNER_DIED)
        fprintf(stderr, "segment: the last holder of lock %lu died; what it protects may be half written\n", id);
    int status = run(command);
    must(lock_manager_unlock(manager, (uint32_t)id));
    must(lock_manager_close(manager));
    return status;
}

int main(int argc, char **argv)
{
    if (argc == 2) {
        look(argv[1]);
        return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
    }
    if (argc >= 5 && strcmp(argv[2], "hold") == 0)
        return hold(argv[1], argv[3], argv + 4);
    fprintf(stderr, "usage: segment PATH\n       segment PATH hold ID COMMAND [ARGUMENT...]\n");
    return 2;
}
