"""Describe one evaluation: its config, its items, and the durable journal of what was scored."""
