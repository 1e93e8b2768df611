/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Both ends of a net.Conn: a *net.TCPConn, or a *tls.Conn around one. Others have no address. */
#ifndef PYTRACEPROP_ADDRESS_BPF_H
#define PYTRACEPROP_ADDRESS_BPF_H

enum { GO_AF_INET = 2, GO_AF_INET6 = 10 };

static inline void read_tcp_addr(const struct target *target, uint64_t address, uint8_t *scratch,
				 uint8_t ip[16], uint8_t *ip_len, uint16_t *port)
{
	struct go_string bytes;

	if (!address || !open_window(scratch, target->tcp_addr_window, address))
		return;
	bytes = window_string(scratch, target->tcp_addr_ip);
	if (bytes.len != 4 && bytes.len != 16)
		return;
	if (read_user(ip, bytes.len == 4 ? 4 : 16, (void *)bytes.data))
		return;
	*ip_len = (uint8_t)bytes.len;
	*port = (uint16_t)window_word(scratch, target->tcp_addr_port);
}

static __noinline int read_addresses(struct target *target, uint64_t conn_field, struct request_state *state)
{
	struct go_iface conn;
	uint64_t local, peer;
	uint32_t family;

	if (!target || !state)
		return 0;
	conn = read_iface(conn_field);
	if (has_type(conn.itab, target->type_tls_conn, &target->itab_tls_conn))
		conn = read_iface(conn.data + target->tls_conn_conn);
	if (!has_type(conn.itab, target->type_tcp_conn, &target->itab_tcp_conn))
		return 0;
	if (!open_window(state->scratch, target->netfd_window, read_word(conn.data + target->tcp_conn_fd)))
		return 0;
	family = (uint32_t)window_word(state->scratch, target->netfd_family);
	if (family != GO_AF_INET && family != GO_AF_INET6)
		return 0;
	/* A TCPConn's ends are *net.TCPAddr by construction (net.sockaddrToTCP). */
	local = window_iface(state->scratch, target->netfd_laddr).data;
	peer = window_iface(state->scratch, target->netfd_raddr).data;
	read_tcp_addr(target, local, state->scratch, state->span.local_ip, &state->span.local_ip_len,
		      &state->span.local_port);
	read_tcp_addr(target, peer, state->scratch, state->span.peer_ip, &state->span.peer_ip_len,
		      &state->span.peer_port);
	return 0;
}

#endif
