"""Air-gapped image transfer: export images into bundles, carry them, import them with every digest intact."""

__version__ = "0.1.0"
