"""Watch releases: a loop that promotes a canary, rolls it back, judges shadows, and mirrors the ledger to MLflow."""
