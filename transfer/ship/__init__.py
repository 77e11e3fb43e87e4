"""Places for files by name: a folder, a medium, a host over SSH."""
