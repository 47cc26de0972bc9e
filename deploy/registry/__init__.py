"""Reconcile the MLflow model registry with the ledger: its aliases, and promotions made there by hand."""
