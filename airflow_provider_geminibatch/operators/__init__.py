"""The stages of a batch as Airflow operators."""
