"""A site's growing collection of bundles: what later deltas build on."""
