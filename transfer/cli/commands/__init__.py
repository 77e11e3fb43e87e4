"""One file a command: its name, its options, its help. What it does is in the file of the same name one folder up."""
