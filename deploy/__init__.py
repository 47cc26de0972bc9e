"""From a verdict to live traffic, and back."""
