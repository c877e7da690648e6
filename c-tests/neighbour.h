/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * What neighbours.c and libpod_neighbour.c have in common. The including file defines _GNU_SOURCE.
 */
#ifndef NEIGHBOUR_H
#define NEIGHBOUR_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { LOCKS = 64, COUNTED = 3 };

static const char *doing;

static void fail(const char *why)
{
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, doing, why);
	exit(EXIT_FAILURE);
}

/* The count, in a file beside the segment. Not atomic: the lock alone keeps it right. */
static volatile uint64_t *counter(const char *segment)
{
	char path[256];
	snprintf(path, sizeof path, "%s.count", segment);
	int file = open(path, O_RDWR | O_CREAT, 0600);
	if (file < 0 || ftruncate(file, sizeof(uint64_t)) < 0)
		fail("the file of the count");
	void *memory = mmap(NULL, sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (memory == MAP_FAILED)
		fail("the memory of the count");
	close(file);
	return memory;
}

#endif
