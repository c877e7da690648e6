/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * The least that a test program needs. A test is a function that main() hands to RUN_TEST; it passes if all its
 * checks hold and there was at least one. Checks may stand in any thread. In a forked child they count in the child,
 * whose exit status child.h reports to the parent.
 *
 * main() ends with `return end_of_tests();`, which prints how many tests there were: without it the script `run` knows
 * that the program has ended early.
 */
#ifndef CHECK_H
#define CHECK_H

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Far more than any test takes, also under valgrind or on a busy machine. */
enum { WATCHDOG_SECONDS = 120 };

static int checks_made, checks_failed, test_skipped;
static int tests_run, tests_failed;
static const char *test_running = "";
/* What a program that is ended by its watchdog must not leave behind. */
static void (*clean_up_at_the_end)(void);

static inline void watchdog_barks(int signal_number)
{
	static const char text[] = ": did not end in time\n";
	(void)signal_number;
	ssize_t ignored = write(STDERR_FILENO, test_running, strlen(test_running));
	ignored += write(STDERR_FILENO, text, sizeof text - 1);
	if (clean_up_at_the_end != NULL)
		clean_up_at_the_end();
	_exit(ignored > 0 ? 124 : 125);
}

static inline void start_watchdog(void)
{
	signal(SIGALRM, watchdog_barks);
	alarm(WATCHDOG_SECONDS);
}

static inline int checked(int holds, const char *file, int line)
{
	__atomic_add_fetch(&checks_made, 1, __ATOMIC_RELAXED);
	if (!holds) {
		__atomic_add_fetch(&checks_failed, 1, __ATOMIC_RELAXED);
		fprintf(stderr, "%s:%d: %s: ", file, line, test_running);
	}
	return holds;
}

static inline void check_int(intmax_t actual, intmax_t expected, const char *text, const char *file, int line)
{
	if (!checked(actual == expected, file, line))
		fprintf(stderr, "%s is %" PRIdMAX ", expected %" PRIdMAX "\n", text, actual, expected);
}

static inline void check_text(const char *actual, const char *expected, const char *text, const char *file, int line)
{
	if (!checked(actual != NULL && strcmp(actual, expected) == 0, file, line))
		fprintf(stderr, "%s is \"%s\", expected \"%s\"\n", text, actual ? actual : "(NULL)", expected);
}

#define CHECK(condition) \
	do { \
		if (!checked((condition) != 0, __FILE__, __LINE__)) \
			fprintf(stderr, "not true: %s\n", #condition); \
	} while (0)
#define CHECK_INT(actual, expected) \
	check_int((intmax_t)(actual), (intmax_t)(expected), #actual, __FILE__, __LINE__)
#define CHECK_TEXT(actual, expected) check_text((actual), (expected), #actual, __FILE__, __LINE__)

/* For what a test stands on: without it the rest would only confuse. */
#define REQUIRE(condition) \
	do { \
		if (!checked((condition) != 0, __FILE__, __LINE__)) { \
			fprintf(stderr, "not true, cannot go on: %s (errno: %s)\n", #condition, strerror(errno)); \
			exit(1); \
		} \
	} while (0)

/* Ends a test that cannot run here. */
#define SKIP(reason) \
	do { \
		fprintf(stderr, "skipped: %s: %s\n", test_running, reason); \
		test_skipped = 1; \
		return; \
	} while (0)

#define RUN_TEST(test) run_test(test, #test)

static inline void run_test(void (*test)(void), const char *name)
{
	test_running = name;
	checks_made = checks_failed = test_skipped = 0;
	start_watchdog();
	test();
	alarm(0);
	if (!checks_made && !test_skipped) {
		fprintf(stderr, "%s: checked nothing\n", name);
		checks_failed = 1;
	}
	tests_run++;
	tests_failed += checks_failed != 0;
	printf("    %s %s\n", checks_failed ? "FAILED " : test_skipped ? "skipped" : "ok     ", name);
	fflush(stdout);
}

static inline int end_of_tests(void)
{
	printf("tests: %d\n", tests_run);
	return tests_failed != 0;
}

#endif
