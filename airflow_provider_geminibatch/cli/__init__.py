"""The geminibatch command; works without a running Airflow."""
