"""Run the training loop: trainer, optimizer step, callbacks, loss-spike detection, choice of the best weights."""
