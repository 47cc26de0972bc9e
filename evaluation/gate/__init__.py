"""Decide whether a challenger is promoted: policy, paired tests, verdict, power, replay, re-score of the champion."""
