"""From what users said to a snapshot one can train on."""
