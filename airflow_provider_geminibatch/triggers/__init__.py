"""Wait without a worker; create nothing."""
