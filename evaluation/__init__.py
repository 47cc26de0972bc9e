"""From a challenger to a verdict."""
