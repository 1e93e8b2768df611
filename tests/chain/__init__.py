"""The test chain: three Go services, the requests sent through them, and who judges the traces.

`services` starts and stops the programs of `tests/go/chain`; `judge` compares what a tracer
reported with what the services witnessed.
"""
