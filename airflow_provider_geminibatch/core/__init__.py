"""Decides. No Airflow, no SDK, no files, no clock, no network, no randomness."""
