"""Find near-duplicates (MinHash) and contradictions between examples."""
