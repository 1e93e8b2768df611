/* SPDX-License-Identifier: Apache-2.0 */
/* One traced process: its entry in the maps, its counters. */
#include "core_private.h"

#include <stdlib.h>

int core_set_target(struct core *core, uint32_t slot, const struct target *target, struct core_error *error)
{
	struct counters *zero;
	int cpus = libbpf_num_possible_cpus(), failed;

	if (cpus < 0)
		return core_fail(error, cpus, "counting processors: %s", strerror(-cpus));
	zero = calloc((size_t)cpus, sizeof(*zero));
	if (!zero)
		return core_fail(error, ENOMEM, "no memory for counters");
	failed = bpf_map_update_elem(core_find_map(core, "targets"), &slot, target, BPF_ANY);
	if (!failed && target->incarnation)
		failed = bpf_map_update_elem(core_find_map(core, "counts"), &slot, zero, BPF_ANY);
	free(zero);
	return failed ? core_fail(error, failed, "describing the process to the BPF programs: %s",
				  strerror(-failed))
		      : 0;
}

int core_watch(struct core *core, uint32_t pid, uint32_t slot, uint32_t link, struct core_error *error)
{
	struct watched_process process = {.slot = slot, .link = link};
	int failed = bpf_map_update_elem(core_find_map(core, "watched"), &pid, &process, BPF_ANY);

	return failed ? core_fail(error, failed, "watching process %u: %s", pid, strerror(-failed)) : 0;
}

void core_unwatch(struct core *core, uint32_t pid)
{
	bpf_map_delete_elem(core_find_map(core, "watched"), &pid);
}

int core_is_vacant(struct core *core, uint32_t slot)
{
	struct target target;

	return !bpf_map_lookup_elem(core_find_map(core, "targets"), &slot, &target) && !target.incarnation;
}

int core_add_context_type(struct core *core, uint32_t incarnation, uint64_t type, uint32_t place,
			  struct core_error *error)
{
	struct context_type_key key = {.incarnation = incarnation, .type = type};
	int failed = bpf_map_update_elem(core_find_map(core, "context_types"), &key, &place, BPF_ANY);

	return failed ? core_fail(error, failed, "describing a context type: %s", strerror(-failed)) : 0;
}

/* Every key begins with the incarnation, and none is longer than this. */
struct any_key {
	uint32_t incarnation, rest[3];
};

static int forget_in(struct core *core, const char *map, uint32_t incarnation)
{
	struct any_key key, next;
	int fd = core_find_map(core, map), deleted = 0;
	bool more = !bpf_map_get_next_key(fd, NULL, &next);

	while (more) {
		key = next;
		more = !bpf_map_get_next_key(fd, &key, &next);
		if (key.incarnation == incarnation && !bpf_map_delete_elem(fd, &key))
			deleted++;
	}
	return deleted;
}

int core_forget(struct core *core, uint32_t incarnation)
{
	forget_in(core, "context_types", incarnation);
	forget_in(core, "contexts", incarnation);
	forget_in(core, "writes", incarnation);
	forget_in(core, "calls", incarnation);
	forget_in(core, "grpc_writes", incarnation);
	return forget_in(core, "servers", incarnation) + forget_in(core, "clients", incarnation);
}

int core_read_counters(struct core *core, uint32_t slot, struct counters *sum)
{
	int cpus = libbpf_num_possible_cpus(), failed;
	struct counters *each;

	if (cpus < 0)
		return cpus;
	each = calloc((size_t)cpus, sizeof(*each));
	if (!each)
		return -ENOMEM;
	failed = bpf_map_lookup_elem(core_find_map(core, "counts"), &slot, each);
	memset(sum, 0, sizeof(*sum));
	for (int cpu = 0; !failed && cpu < cpus; cpu++)
		for (int i = 0; i < COUNTERS; i++)
			sum->count[i] += each[cpu].count[i];
	free(each);
	return failed;
}

int core_read_probe_stats(struct core *core, struct probe_stats *stats)
{
	struct bpf_program *program;

	memset(stats, 0, sizeof(*stats));
	for (uint32_t i = 0; i < core->objects; i++)
		bpf_object__for_each_program(program, core->object[i])
		{
			struct bpf_prog_info info = {};
			uint32_t size = sizeof(info);
			int failed;

			if (!core_is_uprobe(program))
				continue;
			failed = bpf_obj_get_info_by_fd(bpf_program__fd(program), &info, &size);
			if (failed)
				return failed;
			stats->runs += info.run_cnt;
			stats->nanoseconds += info.run_time_ns;
		}
	return 0;
}
