"""Reconcile the MLflow model registry with the ledger: aliases, promotions made there, and its webhook."""
