"""The pack: where each stamp goes in the training shards, and the two passes that take it there."""
