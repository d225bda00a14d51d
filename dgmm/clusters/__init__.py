"""Where workers come from: a file of cluster-configs/ to a Dask client."""
