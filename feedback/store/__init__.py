"""Store events in SQL: interactions, feedback, rated units, tombstones of erased people, and the salt of pseudonyms."""
