"""Site files and windows, where a sync stands, and what far sides say back."""
