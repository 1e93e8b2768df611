/* SPDX-License-Identifier: Apache-2.0 */
/* Draining span records. The programs submit without wake-up, so whoever drains does it on a timer. */
#include "core_private.h"

#include <sys/timerfd.h>
#include <unistd.h>

static int take_record(void *context, void *data, size_t size)
{
	struct core *core = context;

	if (size == sizeof(struct span_record))
		memcpy(&core->buffer[core->drained++], data, size);
	/* A negative answer ends the drain after this record, which counts as consumed. */
	return core->drained == core->capacity ? -ENOSPC : 0;
}

int core_open_ring(struct core *core, struct core_error *error)
{
	core->ring = ring_buffer__new(core_find_map(core, "events"), take_record, core, NULL);
	return core->ring ? 0 : core_fail(error, errno, "mapping the ring buffer: %s", strerror(errno));
}

void core_close_ring(struct core *core)
{
	ring_buffer__free(core->ring);
	core->ring = NULL;
}

int core_drain(struct core *core, struct span_record *buffer, uint32_t capacity)
{
	int failed;

	if (!capacity)
		return 0;
	core->buffer = buffer;
	core->capacity = capacity;
	core->drained = 0;
	failed = ring_buffer__consume(core->ring);
	return failed < 0 && failed != -ENOSPC ? failed : (int)core->drained;
}

int core_open_timer(uint32_t milliseconds)
{
	struct timespec every = {.tv_sec = milliseconds / 1000, .tv_nsec = milliseconds % 1000 * 1000000L};
	struct itimerspec timer = {.it_interval = every, .it_value = every};
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

	if (fd < 0)
		return -errno;
	if (timerfd_settime(fd, 0, &timer, NULL)) {
		int failed = -errno;

		close(fd);
		return failed;
	}
	return fd;
}
