"""The bundle on disk: header, catalog, writing, reading, resuming, checking. FORMAT.md is the authority."""
