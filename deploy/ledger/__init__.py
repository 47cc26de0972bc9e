"""Keep the release ledger: append-only entries, their transitions, the release state they add up to, and leases."""
