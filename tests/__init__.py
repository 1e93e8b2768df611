"""The tests. tests/unit needs no rights, tests/bpf root, tests/vm qemu; docs/testing.md tells more."""
