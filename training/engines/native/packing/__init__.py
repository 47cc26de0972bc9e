"""Tokenise examples, pack them into rows without padding, and run the forward pass over them."""
