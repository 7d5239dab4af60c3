"""The whole story as a decorator."""
