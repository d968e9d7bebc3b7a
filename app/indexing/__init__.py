"""Collections in memory, written down: index files, the structures in them, and compaction."""
