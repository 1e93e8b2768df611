"""What developing and testing pytraceprop needs, and users of the package do not."""
