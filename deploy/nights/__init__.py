"""Read what a night recorded: its request, the result of each finished step, and how it ended."""
