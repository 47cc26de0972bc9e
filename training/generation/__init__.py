"""The parts of the one generator (training/generation.py): cache rows, LoRA rows, sampling, and the running batch."""
