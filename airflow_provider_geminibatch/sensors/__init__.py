"""Wait for jobs and for windows."""
