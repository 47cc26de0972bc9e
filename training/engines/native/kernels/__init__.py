"""Compute fast: packed attention, fused LoRA, the output layer, the optimizer, and distributed collectives."""
