/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What the BPF programs, the core and Python tell one another. Read by clang for both sides and,
 * word for word, by cffi: hence declarations only, no preprocessor (include it once).
 */

enum {
	KEEP_METHOD = 16,     /* bytes kept of a method; the longest registered one has 16 */
	KEEP_PATH = 192,      /* bytes kept of a request's path */
	KEEP_HOST = 96,	      /* bytes kept of a Host header */
	KEEP_ROUTE = 128,     /* bytes kept of a http.ServeMux pattern */
	FIELD_ABSENT = 65535, /* an offset that this program's types do not have */
};

/*
 * Which instruction a probe sits on. A link's cookie is incarnation << 32 | slot << 8 | site; of links
 * that the processes of a file share, link << 32 | site. Where there are no cookies, each site has a
 * program, whose name is the site's in lower case.
 */
enum site {
	SITE_HTTP1_SERVER_START = 1,
	SITE_HTTP1_SERVER_END = 2,
	SITE_HTTP1_SERVER_UNWIND = 3,
	SITE_HTTP1_CLIENT_START = 4,
	SITE_HTTP1_CLIENT_WRITE = 5,
	SITE_HTTP1_CLIENT_END = 6,
	SITE_HTTP1_CLIENT_FAIL = 7,
	SITE_HTTP2_CLIENT = 8,
	SITE_HTTP2_SERVER = 9,
	/* An executable may hold HTTP/2 twice: net/http's own, and golang.org/x/net/http2 HTTP2_XNET further.
	 */
	SITE_HTTP2_SERVER_START = 16,
	SITE_HTTP2_SERVER_END = 17,
	SITE_HTTP2_SERVER_UNWIND = 18,
	SITE_HTTP2_CLIENT_START = 19,
	SITE_HTTP2_CLIENT_WRITE = 20,
	SITE_HTTP2_CLIENT_END = 21,
	SITE_HTTP2_CLIENT_FAIL = 22,
	SITE_HTTP2_CLIENT_CONTINUE = 23,
	SITE_XNET_HTTP2_SERVER_START = 24,
	SITE_XNET_HTTP2_SERVER_END = 25,
	SITE_XNET_HTTP2_SERVER_UNWIND = 26,
	SITE_XNET_HTTP2_CLIENT_START = 27,
	SITE_XNET_HTTP2_CLIENT_WRITE = 28,
	SITE_XNET_HTTP2_CLIENT_END = 29,
	SITE_XNET_HTTP2_CLIENT_FAIL = 30,
	SITE_XNET_HTTP2_CLIENT_CONTINUE = 31,
	HTTP2_XNET = 8,
	SITE_GRPC_SERVER_START = 40,
	SITE_GRPC_SERVER_STATUS = 41,
	SITE_GRPC_SERVER_END = 42,
	SITE_GRPC_CLIENT_START = 43,
	SITE_GRPC_CLIENT_FAIL = 44,
	SITE_GRPC_CLIENT_HEADERS = 45,
	SITE_GRPC_CLIENT_WRITTEN = 46,
	SITE_GRPC_CLIENT_END = 47,
};

enum span_kind { SPAN_SERVER = 1, SPAN_CLIENT = 2 };

enum protocol { PROTOCOL_HTTP1 = 0, PROTOCOL_HTTP2 = 1, PROTOCOL_GRPC = 2 };

/* What became of the outgoing header of a client span. */
enum header_outcome {
	HEADER_NONE = 0,
	HEADER_INJECTED = 1,
	HEADER_APPLICATION = 2,
	HEADER_FORWARDED = 3,
};

/* How a request ended other than with a response. */
enum span_error { ERROR_NONE = 0, ERROR_CALL_FAILED = 1, ERROR_PANIC = 2 };

/* One per attached process; the names are those of Attachment.stats(). */
enum counter {
	COUNT_SERVER_SPANS,
	COUNT_CLIENT_SPANS,
	COUNT_INJECTED,
	COUNT_APPLICATION_HEADER,
	COUNT_FORWARDED_HEADER,
	COUNT_APPLICATION_HEADER_INVALID,
	COUNT_INCOMING_INVALID,
	COUNT_INCOMING_UNREADABLE,
	COUNT_PARENT_BY_CONTEXT,
	COUNT_PARENT_BY_GOROUTINE,
	COUNT_PARENT_TOO_FAR,
	COUNT_NEW_TRACE,
	COUNT_NOT_INJECTED_OFF,
	COUNT_NOT_INJECTED_NO_ROOM,
	COUNT_NOT_INJECTED_HEADERS_UNREADABLE,
	COUNT_NOT_INJECTED_WRITER_UNKNOWN,
	COUNT_NOT_INJECTED_WRITE_REFUSED,
	COUNT_NOT_INJECTED_REQUEST_UNKNOWN,
	COUNT_NOT_INJECTED_AMBIGUOUS,
	COUNT_NOT_INJECTED_FRAME_LIMIT,
	COUNT_NOT_INJECTED_LIST_LIMIT,
	COUNT_NOT_INJECTED_FLUSHED,
	COUNT_HTTP2_CLIENT_UNTRACED,
	COUNT_HTTP2_SERVER_UNTRACED,
	COUNT_CALL_RETRIED,
	COUNT_ABANDONED,
	COUNT_MAP_FULL,
	COUNT_RECORD_DROPPED,
	COUNT_MEMORY_UNREADABLE,
	COUNT_STALE_SITE,
	COUNTERS,
};

/* Where a request of HTTP/2 keeps what we read: net/http.Request, or from Go 1.27 types of http2's own. */
struct http2_request_layout {
	uint16_t window, method, url, header, host, context;
	uint16_t pattern; /* FIELD_ABSENT where it has none */
};

/* One of the copies of HTTP/2 in a traced process. Offsets are bytes. */
struct http2_layout {
	uint64_t type_no_cached_conn; /* noCachedConnError, or 0 */
	struct http2_request_layout served, sent;
	uint16_t server_conn_conn;	       /* serverConn.conn */
	uint16_t response_writer_state;	       /* responseWriter.rws */
	uint16_t response_state_status;	       /* responseWriterState.status */
	uint16_t response_status;	       /* of what RoundTripOpt returns */
	uint16_t stream_conn;		       /* clientStream.cc */
	uint16_t conn_conn;		       /* ClientConn.tconn */
	uint16_t conn_block, conn_block_start; /* in ClientConn.hbuf: bytes.Buffer's buf and off */
	uint16_t conn_writer;		       /* ClientConn.bw */
	uint16_t conn_framer, framer_buffer;   /* ClientConn.fr, Framer.wbuf */
	uint16_t conn_max_frame;	       /* ClientConn.maxFrameSize */
	uint16_t conn_max_list;		       /* ClientConn.peerMaxHeaderListSize */
	uint16_t conn_encoder, encoder_table;  /* ClientConn.henc, and dynTab.maxSize in that */
	/* At the write site, in bytes from the stack pointer: the block, as WriteHeaders is given it; the
	 * return address; what encodeAndWriteHeaders was given. */
	uint16_t write_block, write_frame, write_stream, write_request;
	int32_t write_return; /* what the return address is, from the site on */
	/* At the site of another frame, in bytes from the stack pointer: the return address, and where the
	 * caller, which is the function that has the write site, has its stack pointer. */
	uint16_t continue_frame, continue_caller;
	int32_t continue_return, continue_write_return; /* the return addresses of both, from the site on */
};

struct counters {
	uint64_t count[COUNTERS];
};

/*
 * Where google.golang.org/grpc keeps what we read. Offsets are bytes. What a server's and a client's stream
 * have in common is in transport.Stream: the value itself, embedded in it, or (*_common) behind a pointer.
 */
struct grpc_layout {
	/* Addresses of runtime type descriptors. */
	uint64_t type_metadata;		 /* metadata.MD */
	uint64_t type_value_ctx;	 /* *context.valueCtx */
	uint64_t type_status_error;	 /* *internal/status.Error */
	uint64_t type_error_string;	 /* *errors.errorString */
	uint64_t type_tcp_addr;		 /* *net.TCPAddr */
	uint64_t type_http2_server;	 /* *transport.http2Server */
	uint64_t type_handler_transport; /* *transport.serverHandlerTransport */
	/* Itabs that were seen to be of those types; filled by the programs. */
	uint64_t itab_value_ctx, itab_tcp_addr, itab_http2_server, itab_handler_transport;
	uint16_t value_ctx_val;
	uint16_t server_common, client_common; /* FIELD_ABSENT where no pointer leads to it */
	uint16_t server_method, server_context, client_context;
	uint16_t server_local, server_peer; /* net.Addr in http2Server, FIELD_ABSENT before it kept them */
	uint16_t client_transport;	    /* the *http2Client of a client's stream */
	uint16_t client_local, client_peer; /* net.Addr in http2Client */
	uint16_t client_max_list;	    /* http2Client.maxSendHeaderListSize, a pointer */
	uint16_t stream_quota;		    /* transport.Stream.wq */
	uint16_t stream_quota_embedded;	    /* whether that is the value itself */
	uint16_t status_error_status;	    /* internal/status.Error.s */
	uint16_t status_proto, status_code; /* internal/status.Status.s, and Code in what it points at */
	uint16_t call_context, call_header; /* in grpc.clientStream */
	uint16_t call_host, call_method;    /* in transport.CallHdr */
	uint16_t call_slot;		    /* rsp + this holds the *clientStream where its creation failed */
	uint16_t loopy_framer, framer_writer;	       /* loopyWriter.framer, framer.writer */
	uint16_t loopy_block;			       /* loopyWriter.hBuf, a *bytes.Buffer */
	uint16_t buffer_bytes;			       /* bytes.Buffer.buf */
	uint16_t writer_buffer, writer_buffer_pointer; /* bufWriter's []byte, whether behind a pointer */
	uint16_t writer_offset, writer_batch, writer_error;
	uint16_t headers_slot; /* rsp + this holds the headerFrame or clientHeaders at the write */
	uint16_t headers_fields, headers_quota, headers_orphaned; /* in that */
	uint16_t field_name, field_value, field_size;		  /* hpack.HeaderField */
};

/* One traced process: where its Go types keep what we read. Offsets are bytes. */
struct target {
	uint32_t incarnation; /* never reused; part of every key */
	uint32_t inject;      /* whether this process's memory may be written */
	/* Addresses of runtime type descriptors, as found in an itab's second word. */
	uint64_t type_response;		   /* *net/http.response */
	uint64_t type_bufio_writer;	   /* *bufio.Writer */
	uint64_t type_persist_conn_writer; /* net/http.persistConnWriter */
	uint64_t type_tls_conn;		   /* *crypto/tls.Conn */
	uint64_t type_tcp_conn;		   /* *net.TCPConn */
	/* Itabs that were seen to be of those types; filled by the programs. */
	uint64_t itab_response, itab_bufio_writer, itab_persist_conn_writer, itab_tls_conn, itab_tcp_conn;
	/*
	 * How many bytes of a struct hold all that is read of it: one read of many bytes costs as
	 * much as one of eight.
	 */
	uint16_t request_window, client_response_window, bufio_window;
	uint16_t netfd_window, tcp_addr_window, map_window;
	uint16_t g_goid;
	uint16_t request_method, request_url, request_header, request_host, request_ctx, request_pattern;
	uint16_t url_path, url_host;
	uint16_t response_conn, response_status;
	uint16_t conn_rwc, conn_hijacked;
	uint16_t tls_conn_conn;
	uint16_t tcp_conn_fd;
	uint16_t netfd_family, netfd_laddr, netfd_raddr;
	uint16_t tcp_addr_ip, tcp_addr_port;
	uint16_t transport_request_request;
	uint16_t transport_request_call; /* a word that differs from call to call */
	uint16_t persist_conn_conn;
	uint16_t client_response_status, client_response_proto_major;
	uint16_t bufio_err, bufio_buf, bufio_n, bufio_wr;
	uint16_t write_receiver; /* rsp + this holds the *Request at the write site */
	/*
	 * A map from string to []string: Swiss layout (Go 1.24 and later), or the older one of buckets,
	 * of which map_dir_ptr is the array, map_dir_len the old array, map_writing the flags.
	 */
	uint16_t map_used, map_dir_ptr, map_dir_len, map_writing;
	uint16_t table_groups_data, table_groups_mask;
	uint16_t group_size, group_ctrl, group_keys, group_key_stride, group_elems, group_elem_stride;
	uint16_t hmap_b, bucket_overflow; /* 0 for Swiss maps */
	struct http2_layout http2[2];	  /* net/http's own; golang.org/x/net/http2 */
	struct grpc_layout grpc;
};

struct span_record {
	uint8_t trace_id[16];
	uint8_t span_id[8];
	uint8_t parent_span_id[8]; /* all zero: a root */
	uint64_t start_ns, end_ns; /* CLOCK_MONOTONIC */
	uint64_t goid;
	uint32_t incarnation;
	uint16_t status;
	uint16_t method_len, path_len, host_len, route_len; /* of what was kept */
	uint8_t kind, header, error, trace_flags;
	uint8_t parent_remote; /* the parent came in a header */
	uint8_t truncated;     /* a string was longer than what is kept */
	uint8_t peer_ip_len, local_ip_len;
	uint16_t peer_port, local_port;
	uint8_t peer_ip[16], local_ip[16];
	char method[KEEP_METHOD];
	char path[KEEP_PATH];
	char host[KEEP_HOST];
	char route[KEEP_ROUTE];
	uint8_t protocol;
};

/* A process in the map watched, whose keys are tgids as the tracer's pid namespace numbers them. */
struct watched_process {
	uint32_t slot;
	uint32_t link;	/* whose hits are this process's, where links are shared; else 0 */
	uint64_t start; /* task_struct.start_boottime, from the first hit on; 0 before */
};

/*
 * Keys of the map that Python fills. The value says where a value of the type keeps its parent: the low
 * half is an offset, in the value itself if the high half is 0, else behind the pointer that is in the
 * value at (high half - 1).
 */
struct context_type_key {
	uint32_t incarnation, unused;
	uint64_t type;
};
