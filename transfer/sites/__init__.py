"""What far sides say back, and what is known of them."""
