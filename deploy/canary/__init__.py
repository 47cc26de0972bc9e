"""Judge a canary: sequential tests (e-processes) on rated users, power, flood filter, and re-scores of the champion."""
