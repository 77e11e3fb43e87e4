"""One module at a time, without a command: seconds."""
