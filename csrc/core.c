/* SPDX-License-Identifier: Apache-2.0 */
/* Opening and closing the core: the objects, and the maps that they have in common. */
#include "core_private.h"

#include <bpf/btf.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/* libbpf prints through one global hook: each thread keeps what belongs to its own call. */
static _Thread_local struct core_error *current_error;

static int keep_log(enum libbpf_print_level level, const char *format, va_list args)
{
	struct core_error *error = current_error;
	size_t used;

	if (!error || level == LIBBPF_DEBUG)
		return 0;
	used = strlen(error->log);
	return vsnprintf(error->log + used, sizeof(error->log) - used, format, args);
}

static void set_print_hook(void)
{
	libbpf_set_print(keep_log);
}

int core_fail(struct core_error *error, int number, const char *format, ...)
{
	va_list args;

	number = number < 0 ? -number : number;
	error->number = number;
	va_start(args, format);
	vsnprintf(error->message, sizeof(error->message), format, args);
	va_end(args);
	return -number;
}

/* Sets a const volatile variable of the object; one that does not have it is left alone. */
static void set_constant(struct bpf_object *object, const char *name, const void *value, size_t bytes)
{
	const struct btf *btf = bpf_object__btf(object);
	const struct btf_type *section;
	const struct btf_var_secinfo *variable;
	struct bpf_map *map;
	size_t size = 0;
	char *data;
	int id = btf ? btf__find_by_name_kind(btf, ".rodata", BTF_KIND_DATASEC) : -1;

	if (id < 0)
		return;
	section = btf__type_by_id(btf, id);
	variable = btf_var_secinfos(section);
	bpf_object__for_each_map(map, object)
	{
		const char *map_name = bpf_map__name(map);
		size_t length = strlen(map_name);

		if (!bpf_map__is_internal(map) || length < 7 || strcmp(map_name + length - 7, ".rodata"))
			continue;
		data = (char *)bpf_map__initial_value(map, &size); /* ours until it is loaded */
		for (int i = 0; data && i < btf_vlen(section); i++, variable++) {
			const struct btf_type *type = btf__type_by_id(btf, variable->type);

			if (!strcmp(btf__name_by_offset(btf, type->name_off), name) &&
			    variable->size == bytes && variable->offset + bytes <= size)
				memcpy(data + variable->offset, value, bytes);
		}
	}
}

/* The inode that tells the pid namespace of this process from others; 0 where /proc does not say. */
static uint32_t own_pid_namespace(void)
{
	struct stat found;

	return stat("/proc/self/ns/pid", &found) ? 0 : (uint32_t)found.st_ino;
}

static int size_map(struct bpf_map *map, const struct core_options *options)
{
	const char *name = bpf_map__name(map);

	if (!strcmp(name, "events"))
		return bpf_map__set_max_entries(map, options->ring_bytes);
	if (!strcmp(name, "servers") || !strcmp(name, "clients") || !strcmp(name, "contexts") ||
	    !strcmp(name, "writes") || !strcmp(name, "calls") || !strcmp(name, "grpc_writes"))
		return bpf_map__set_max_entries(map, options->max_requests);
	return 0;
}

/* Maps of one name in several objects are one map. */
static int share_maps(struct core *core, struct bpf_object *object, const struct core_options *options)
{
	struct bpf_map *map, *first;

	bpf_object__for_each_map(map, object)
	{
		int failed = size_map(map, options);

		for (uint32_t i = 0; !failed && i < core->objects; i++) {
			first = bpf_map__is_internal(map)
					? NULL
					: bpf_object__find_map_by_name(core->object[i], bpf_map__name(map));
			if (first) {
				failed = bpf_map__reuse_fd(map, bpf_map__fd(first));
				break;
			}
		}
		if (failed)
			return failed;
	}
	return 0;
}

bool core_is_uprobe(const struct bpf_program *program)
{
	return !strncmp(bpf_program__section_name(program), "uprobe", strlen("uprobe"));
}

static int load_object(struct core *core, const char *path, const struct core_options *options,
		       struct core_error *error)
{
	struct bpf_object *object = bpf_object__open_file(path, NULL);
	struct bpf_program *program;
	bool write_user = options->write_user;
	bool multi = core->attach_mode <= ATTACH_MULTI_UNFILTERED;
	bool any_process = core->attach_mode == ATTACH_MULTI_UNFILTERED;
	uint32_t pid_namespace = own_pid_namespace();
	int failed;

	if (!object)
		return core_fail(error, errno, "opening %s: %s", path, strerror(errno));
	set_constant(object, "write_user", &write_user, sizeof(write_user));
	set_constant(object, "any_process", &any_process, sizeof(any_process));
	set_constant(object, "tracer_pidns", &pid_namespace, sizeof(pid_namespace));
	bpf_object__for_each_program(program, object)
	{
		if (multi && core_is_uprobe(program))
			bpf_program__set_expected_attach_type(program,
							      (enum bpf_attach_type)ATTACH_TYPE_UPROBE_MULTI);
	}
	failed = share_maps(core, object, options);
	if (!failed)
		failed = bpf_object__load(object);
	if (failed) {
		bpf_object__close(object);
		/* ESRCH is said of the types: programs are fitted to those of the kernel (CO-RE). */
		return core_fail(error, failed, "loading %s: %s", path,
				 failed == -ESRCH
					 ? "the kernel's types (BTF) are not in /sys/kernel/btf/vmlinux"
					 : strerror(-failed));
	}
	core->object[core->objects++] = object;
	return 0;
}

int core_find_map(struct core *core, const char *name)
{
	for (uint32_t i = 0; i < core->objects; i++) {
		int fd = bpf_object__find_map_fd_by_name(core->object[i], name);

		if (fd >= 0)
			return fd;
	}
	return -ENOENT;
}

struct bpf_program *core_find_program(struct core *core, const char *name)
{
	for (uint32_t i = 0; i < core->objects; i++) {
		struct bpf_program *program = bpf_object__find_program_by_name(core->object[i], name);

		if (program)
			return program;
	}
	return NULL;
}

/* For as long as the core is open; detaching a raw tracepoint costs nothing. */
static int watch_execs(struct core *core, struct core_error *error)
{
	struct bpf_program *program = core_find_program(core, "process_exec");

	core->exec_watch = program ? bpf_program__attach(program) : NULL;
	return core->exec_watch ? 0
				: core_fail(error, program ? errno : ENOENT, "watching for execve(2): %s",
					    strerror(program ? errno : ENOENT));
}

struct core *core_open(const char *const *object_paths, uint32_t objects, const struct core_options *options,
		       struct core_error *error)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	struct core *core = calloc(1, sizeof(*core));
	int failed = 0;

	pthread_once(&once, set_print_hook);
	if (!core || objects > MAX_OBJECTS) {
		core_fail(error, core ? E2BIG : ENOMEM, "cannot hold %u BPF objects", objects);
		free(core);
		return NULL;
	}
	core->attach_mode = options->attach_mode;
	current_error = error;
	for (uint32_t i = 0; i < objects && !failed; i++)
		failed = load_object(core, object_paths[i], options, error);
	if (!failed)
		failed = watch_execs(core, error);
	if (!failed)
		failed = core_open_ring(core, error);
	current_error = NULL;
	if (failed) {
		core_close(core);
		return NULL;
	}
	return core;
}

void core_close(struct core *core)
{
	if (!core)
		return;
	core_close_ring(core);
	bpf_link__destroy(core->exec_watch);
	while (core->objects)
		bpf_object__close(core->object[--core->objects]);
	free(core);
}
