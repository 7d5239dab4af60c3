"""Airflow connection to gateway."""
