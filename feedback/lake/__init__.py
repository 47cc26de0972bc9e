"""Keep examples in Delta tables: commits, storage, maintenance, quarantine, and orphaned events."""
