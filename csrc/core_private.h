/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PYTRACEPROP_CORE_PRIVATE_H
#define PYTRACEPROP_CORE_PRIVATE_H

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "../bpf/records.h"
#include "core.h"

enum { MAX_OBJECTS = 16 };

/* BPF_TRACE_UPROBE_MULTI (Linux 6.6, commit 89ae89f53d20): the headers of the build may be older. */
enum { ATTACH_TYPE_UPROBE_MULTI = 48 };

struct core {
	enum attach_mode attach_mode;
	struct bpf_object *object[MAX_OBJECTS];
	uint32_t objects;
	struct bpf_link *exec_watch;
	struct ring_buffer *ring;
	struct span_record *buffer; /* of the drain under way */
	uint32_t capacity, drained;
};

/* Fills the error; the negative errno, for returning it. */
__attribute__((format(printf, 3, 4))) int core_fail(struct core_error *error, int number, const char *format,
						    ...);
/* Objects may also hold programs of other kinds, such as tracepoints. */
bool core_is_uprobe(const struct bpf_program *program);
int core_find_map(struct core *core, const char *name);
struct bpf_program *core_find_program(struct core *core, const char *name);

int core_open_ring(struct core *core, struct core_error *error);
void core_close_ring(struct core *core);

#endif
