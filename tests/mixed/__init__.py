"""The mixed chain: HTTP/1.1, HTTP/2, unary and streaming grpc, and who judges the traces.

    driver -> front -> HTTP/2 over TLS -> gateway -> grpc over TLS -> unary -> grpc streams -> stream
           -> HTTP/1.1 -> back

`services` starts and stops the programs of `tests/go/mixed`; `judge` compares what a tracer
reported with what the services witnessed.
"""
