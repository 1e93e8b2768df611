"""Example programs; start one with `python -m examples.<name>`."""
