/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Both ends of a net.Conn: a *net.TCPConn, or a *tls.Conn around one. Others have no address. */
#ifndef PYTRACEPROP_ADDRESS_BPF_H
#define PYTRACEPROP_ADDRESS_BPF_H

enum { GO_AF_INET = 2, GO_AF_INET6 = 10 };

static inline void read_tcp_addr(const struct target *target, uint64_t address, uint8_t ip[16],
				 uint8_t *ip_len, uint16_t *port)
{
	struct go_slice bytes = {};

	if (!address || read_user(&bytes, sizeof(bytes), (void *)(address + target->tcp_addr_ip)))
		return;
	if (bytes.len != 4 && bytes.len != 16)
		return;
	if (read_user(ip, bytes.len == 4 ? 4 : 16, (void *)bytes.data))
		return;
	*ip_len = (uint8_t)bytes.len;
	*port = (uint16_t)read_word(address + target->tcp_addr_port);
}

static __noinline int read_addresses(const struct target *target, uint64_t conn_field,
				     struct span_record *span)
{
	struct go_iface conn;
	uint64_t type, fd;
	uint32_t family;

	if (!target || !span)
		return 0;
	conn = read_iface(conn_field);
	type = itab_type(conn.itab);
	if (type && type == target->type_tls_conn) {
		conn = read_iface(conn.data + target->tls_conn_conn);
		type = itab_type(conn.itab);
	}
	if (!type || type != target->type_tcp_conn)
		return 0;
	fd = read_word(conn.data + target->tcp_conn_fd);
	family = (uint32_t)read_word(fd + target->netfd_family);
	if (family != GO_AF_INET && family != GO_AF_INET6)
		return 0;
	/* A TCPConn's ends are *net.TCPAddr by construction (net.sockaddrToTCP). */
	read_tcp_addr(target, read_iface(fd + target->netfd_laddr).data, span->local_ip,
		      &span->local_ip_len, &span->local_port);
	read_tcp_addr(target, read_iface(fd + target->netfd_raddr).data, span->peer_ip, &span->peer_ip_len,
		      &span->peer_port);
	return 0;
}

#endif
