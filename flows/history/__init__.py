"""Show the lake and its snapshots, and find stored nights with their scorecards."""
