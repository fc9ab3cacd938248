"""Programs that use a cluster as applications do, one for each client library."""
