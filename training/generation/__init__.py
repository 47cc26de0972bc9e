"""Generate: continuous batching on the base model with many adapters, sampling, prefixes, log-probabilities."""
