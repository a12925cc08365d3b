"""The trainer: streams packed shards, trains a finder, and leaves checkpoints that carry all they need."""
