"""Door one, to the service: the gateway and one module per route."""
