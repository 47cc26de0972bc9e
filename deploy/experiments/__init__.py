"""Store shadow answers and side-by-side comparisons (arena): who answered what, and which answer was preferred."""
