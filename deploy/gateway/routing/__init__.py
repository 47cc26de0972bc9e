"""Route users to versions: follow the ledger, assign a unit to champion, canary or holdback, and keep it there."""
