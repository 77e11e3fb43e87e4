"""Where images live: each engine says what it holds and takes what it lacks. Engines speak descriptors and bytes."""
