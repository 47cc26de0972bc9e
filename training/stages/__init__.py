"""Run a stage: one resumable training job, its dataset, checkpoints, output, and probe."""
