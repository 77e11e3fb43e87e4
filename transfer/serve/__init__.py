"""A read-only registry that answers straight from a bundle."""
