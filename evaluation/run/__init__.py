"""Run one evaluation as a process: score the items, measure noise, and build the scorecard."""
