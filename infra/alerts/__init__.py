"""Deliver alerts: the outbox in SQL, and its receivers."""
