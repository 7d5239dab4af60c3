"""Walks the story through the two doors, still without Airflow."""
