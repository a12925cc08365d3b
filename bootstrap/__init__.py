"""What a machine needs before it can run a stage or train."""
