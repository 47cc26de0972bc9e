"""Serve the deployments to Prefect: schedules, work pools, automations, and recovery of crashed runs."""
