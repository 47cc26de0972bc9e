"""What answers: the embedded engine, and the client that speaks to it and to vLLM alike."""
