"""ComputeProviders: each says what its adapter can, whether its credentials work, and what can be had, refreshed in the background."""
