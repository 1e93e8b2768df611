/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native core: loads the CO-RE objects, attaches their programs, drains their records. Read word
 * for word by cffi (after bpf/records.h), hence declarations only. Functions that can fail return
 * NULL or a negative errno and fill the error.
 */

struct core;

struct core_error {
	int number;	   /* positive errno */
	char message[256]; /* one sentence */
	char log[32768];   /* what libbpf and the verifier said, newest last */
};

/* How programs are linked to instructions; pytraceprop/native.py says which kernels have what. */
enum attach_mode {
	ATTACH_MULTI,		 /* a uprobe-multi link, for one process */
	ATTACH_MULTI_UNFILTERED, /* the same, for all processes of the file */
	ATTACH_PERF_LINK,	 /* a perf event for each site, and a link with a cookie */
	ATTACH_PERF_IOCTL,	 /* a perf event for each site */
};

struct core_options {
	enum attach_mode attach_mode;
	uint32_t max_requests; /* in flight at once, all processes together, each direction */
	uint32_t ring_bytes;   /* a power of two, a multiple of the page size */
	uint8_t write_user;    /* load the code that writes into traced processes */
};

struct probe_stats {
	uint64_t runs, nanoseconds; /* zero unless kernel.bpf_stats_enabled */
};

struct core *core_open(const char *const *object_paths, uint32_t objects, const struct core_options *options,
		       struct core_error *error);
void core_close(struct core *core);

/* Gives the slot to a process, or (target all zero) takes it back. */
int core_set_target(struct core *core, uint32_t slot, const struct target *target, struct core_error *error);
int core_add_context_type(struct core *core, uint32_t incarnation, uint64_t type, uint32_t place,
			  struct core_error *error);
/* Removes every entry of the process from every map; how many requests were under way. */
int core_forget(struct core *core, uint32_t incarnation);

/*
 * The process is in the slot until core_unwatch: an execve of it takes the slot's target back. link:
 * that number in the cookies of shared links.
 */
int core_watch(struct core *core, uint32_t pid, uint32_t slot, uint32_t link, struct core_error *error);
void core_unwatch(struct core *core, uint32_t pid);
/* Whether the slot has no target (any more). */
int core_is_vacant(struct core *core, uint32_t slot);

/*
 * A link on all offsets of the file, for one process, or for all (ATTACH_MULTI_UNFILTERED): its
 * descriptor. Closing it detaches.
 */
int core_attach_multi(struct core *core, const char *program, const char *path, uint32_t pid,
		      const uint64_t *offsets, const uint64_t *cookies, uint32_t sites,
		      struct core_error *error);
/* The same of a single offset, by a perf event. The cookie is lost in ATTACH_PERF_IOCTL. */
int core_attach_event(struct core *core, const char *program, const char *path, uint32_t pid, uint64_t offset,
		      uint64_t cookie, struct core_error *error);
/* The link's number in the kernel, and one more descriptor of that link; or a negative errno. */
int core_link_id(int link);
int core_open_link(uint32_t id);

/* How many records were copied into the buffer, at most capacity. Never waits. */
int core_drain(struct core *core, struct span_record *buffer, uint32_t capacity);
int core_read_counters(struct core *core, uint32_t slot, struct counters *sum);
/* Of all programs on uprobes together. */
int core_read_probe_stats(struct core *core, struct probe_stats *stats);

/* bpf/traceparent.h, for the unit tests: 1 and the ids where the W3C text allows the value. */
int core_parse_traceparent(const uint8_t *value, uint32_t length, uint8_t trace_id[16], uint8_t span_id[8],
			   uint8_t *flags);
/* The 70 bytes of the header line that the programs inject. */
void core_format_field(const uint8_t trace_id[16], const uint8_t span_id[8], uint8_t flags, uint8_t line[72]);
/* The 69 bytes of the field that is injected into HTTP/2. */
void core_format_hpack(const uint8_t trace_id[16], const uint8_t span_id[8], uint8_t flags,
		       uint8_t field[72]);
/* Whether the fields of an HPACK block take at most so many bytes in all; 0 too if that is not sure. */
int core_list_fits(const uint8_t *block, uint32_t length, uint32_t table, uint64_t limit);

/* A descriptor that becomes readable every so many milliseconds (timerfd), or a negative errno. */
int core_open_timer(uint32_t milliseconds);
