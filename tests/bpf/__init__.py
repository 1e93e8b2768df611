"""Real Go programs, traced by the kernel that runs the tests."""
