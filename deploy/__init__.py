"""Release versions to live traffic after a verdict, and roll them back."""
