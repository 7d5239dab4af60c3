"""Gemini batch jobs in Airflow, chained on their real completion time."""

__version__ = "0.1.0"
