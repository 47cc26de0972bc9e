"""Pack training items into rows without padding (sequence packing), and run the forward pass over them."""
