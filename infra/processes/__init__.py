"""Run processes: children with job files, file locks, thread counts, and the supervisor of the local stack."""
