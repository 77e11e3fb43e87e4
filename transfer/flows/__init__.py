"""The only place where the rooms meet: export, load, check, plan."""
