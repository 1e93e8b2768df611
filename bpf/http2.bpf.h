/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What the programs of both sides of HTTP/2 have in common. */
#ifndef PYTRACEPROP_HTTP2_BPF_H
#define PYTRACEPROP_HTTP2_BPF_H

/* The layout of the copy of HTTP/2 that the site belongs to. */
static __always_inline const struct http2_layout *http2_layout(const struct here *here)
{
	return &here->target->http2[here->site & HTTP2_XNET ? 1 : 0];
}

/* The same site, as it is numbered in net/http's own copy. */
static __always_inline enum site http2_site(const struct here *here)
{
	return here->site & ~HTTP2_XNET;
}

/* False, and a count, where the request cannot be read. */
static __always_inline bool read_http2_request(const struct here *here, const struct http2_request_layout *at,
					       struct request_state *state, struct request_words *words)
{
	if (!open_window(state->scratch, at->window, state->request)) {
		count(here, COUNT_MEMORY_UNREADABLE);
		return false;
	}
	words->method = window_string(state->scratch, at->method);
	words->host = window_string(state->scratch, at->host);
	words->url = window_word(state->scratch, at->url);
	words->header = window_word(state->scratch, at->header);
	words->context = window_iface(state->scratch, at->context);
	return true;
}

#endif
