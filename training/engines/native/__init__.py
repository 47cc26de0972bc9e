"""Train with Ratchet's own engine: packed rows on transformers' Trainer, for every objective and tuner."""
