"""Compute power before a night: what gate and canary can detect, and whether there is data enough."""
