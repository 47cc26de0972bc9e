"""Report an evaluation as HTML with plots."""
