/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What both sides of google.golang.org/grpc have in common: streams, addresses, status codes. */
#ifndef PYTRACEPROP_GRPC_BPF_H
#define PYTRACEPROP_GRPC_BPF_H

enum grpc_code { GRPC_OK = 0, GRPC_UNKNOWN = 2, GRPC_UNAVAILABLE = 14 };

/* The transport.Stream of a server's or a client's stream: the same value, or (grpc 1.69) behind a pointer.
 */
static inline uint64_t common_stream(uint64_t stream, uint16_t pointer)
{
	return pointer == FIELD_ABSENT ? stream : read_word(stream + pointer);
}

/* The address in a net.Addr, if it is a *net.TCPAddr. */
static __always_inline void read_net_addr(struct target *target, uint64_t field, uint8_t *scratch,
					  uint8_t ip[16], uint8_t *ip_len, uint16_t *port)
{
	struct go_iface addr = read_iface(field);

	if (has_type(addr.itab, target->grpc.type_tcp_addr, &target->grpc.itab_tcp_addr))
		read_tcp_addr(target, addr.data, scratch, ip, ip_len, port);
}

static __noinline int read_net_addrs(struct target *target, uint64_t local, uint64_t peer,
				     struct request_state *state)
{
	if (!target || !state)
		return 0;
	read_net_addr(target, local, state->scratch, state->span.local_ip, &state->span.local_ip_len,
		      &state->span.local_port);
	read_net_addr(target, peer, state->scratch, state->span.peer_ip, &state->span.peer_ip_len,
		      &state->span.peer_port);
	return 0;
}

/* The code of a *status.Status; nil, and one without a message, are OK (Status.Code). */
static inline uint16_t status_code(const struct grpc_layout *layout, uint64_t status)
{
	uint64_t proto = status ? read_word(status + layout->status_proto) : 0;
	uint32_t code = 0;

	if (proto && read_user(&code, sizeof(code), (void *)(proto + layout->status_code)))
		return GRPC_UNKNOWN;
	return (uint16_t)code;
}

#endif
