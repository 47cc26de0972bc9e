"""Cut snapshots: immutable training sets, the split into training and gate parts, and the gate items."""
