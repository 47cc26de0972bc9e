"""Run a stage: one resumable training job, its tokenization and dataset, checkpoints, output, and probe."""
