/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linking programs to instructions of a file. By hand: libbpf 1.1 knows no uprobe-multi, and of a link
 * nothing but its descriptor is needed.
 */
#include "core_private.h"

#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define EVENT_SOURCES "/sys/bus/event_source/devices"
#define UPROBE_TYPE EVENT_SOURCES "/uprobe/type"

/* The parts of union bpf_attr for BPF_LINK_CREATE; the build's headers may be older. */
struct uprobe_multi_attr { /* Linux 6.6, commit 89ae89f53d20 */
	uint32_t prog_fd, target_fd, attach_type, flags;
	uint64_t path, offsets, ref_ctr_offsets, cookies;
	uint32_t count, multi_flags, pid;
};

struct perf_link_attr { /* Linux 5.15, commits b89fbfbb854c and 82e6b1eee6a8 */
	uint32_t prog_fd, target_fd, attach_type, flags;
	uint64_t cookie;
};

enum { ATTACH_TYPE_PERF_EVENT = 41 }; /* BPF_PERF_EVENT */

static int program_descriptor(struct core *core, const char *program, struct core_error *error)
{
	struct bpf_program *found = core_find_program(core, program);

	return found ? bpf_program__fd(found)
		     : core_fail(error, ENOENT, "there is no BPF program %s", program);
}

int core_attach_multi(struct core *core, const char *program, const char *path, uint32_t pid,
		      const uint64_t *offsets, const uint64_t *cookies, uint32_t sites,
		      struct core_error *error)
{
	struct uprobe_multi_attr attr = {
		.attach_type = ATTACH_TYPE_UPROBE_MULTI,
		.path = (uintptr_t)path,
		.offsets = (uintptr_t)offsets,
		.cookies = (uintptr_t)cookies,
		.count = sites,
		.pid = core->attach_mode == ATTACH_MULTI_UNFILTERED ? 0 : pid,
	};
	int link, fd = program_descriptor(core, program, error);

	if (fd < 0)
		return fd;
	attr.prog_fd = (uint32_t)fd;
	link = (int)syscall(SYS_bpf, BPF_LINK_CREATE, &attr, sizeof(attr));
	return link < 0 ? core_fail(error, errno, "attaching %s to %u sites: %s", program, sites,
				    strerror(errno))
			: link;
}

/* The type of perf events on user functions (Linux 4.17, commit 33ea4b24277b), or a negative errno. */
static int read_uprobe_type(void)
{
	FILE *file = fopen(UPROBE_TYPE, "re");
	int type, found;

	if (!file)
		return -errno;
	found = fscanf(file, "%d", &type);
	fclose(file);
	return found == 1 ? type : -EINVAL;
}

/* Programs on it run in all threads of the process: it is told by its memory (uprobe_perf_filter). */
static int open_event(const char *path, uint32_t pid, uint64_t offset, struct core_error *error)
{
	struct perf_event_attr attr = {
		.size = sizeof(attr),
		.config1 = (uintptr_t)path,
		.config2 = offset,
	};
	int event, type = read_uprobe_type();

	if (type == -ENOENT && !access(EVENT_SOURCES, F_OK))
		return core_fail(error, EOPNOTSUPP, "there is no %s", UPROBE_TYPE);
	if (type < 0) /* there is no other way to the number */
		return core_fail(error, ENODEV, "reading %s: %s; is sysfs mounted?", UPROBE_TYPE,
				 strerror(-type));
	attr.type = (uint32_t)type;
	event = (int)syscall(SYS_perf_event_open, &attr, (pid_t)pid, -1, -1, PERF_FLAG_FD_CLOEXEC);
	return event < 0 ? core_fail(error, errno, "opening a perf event at 0x%llx: %s",
				     (unsigned long long)offset, strerror(errno))
			 : event;
}

int core_attach_event(struct core *core, const char *program, const char *path, uint32_t pid, uint64_t offset,
		      uint64_t cookie, struct core_error *error)
{
	struct perf_link_attr attr = {.attach_type = ATTACH_TYPE_PERF_EVENT, .cookie = cookie};
	int link, event, failed = 0, fd = program_descriptor(core, program, error);

	if (fd < 0)
		return fd;
	event = open_event(path, pid, offset, error);
	if (event < 0)
		return event;
	if (core->attach_mode == ATTACH_PERF_IOCTL) {
		link = event;
		if (ioctl(event, PERF_EVENT_IOC_SET_BPF, fd))
			failed = errno;
	} else {
		attr.prog_fd = (uint32_t)fd;
		attr.target_fd = (uint32_t)event;
		link = (int)syscall(SYS_bpf, BPF_LINK_CREATE, &attr, sizeof(attr));
		if (link < 0)
			failed = errno;
	}
	if (failed || link != event) /* the link holds the event */
		close(event);
	return failed ? core_fail(error, failed, "attaching %s at 0x%llx: %s", program,
				  (unsigned long long)offset, strerror(failed))
		      : link;
}

int core_link_id(int link)
{
	struct bpf_link_info info = {};
	uint32_t size = sizeof(info);
	int failed = bpf_obj_get_info_by_fd(link, &info, &size);

	return failed ? failed : (int)info.id;
}

int core_open_link(uint32_t id)
{
	return bpf_link_get_fd_by_id(id);
}
