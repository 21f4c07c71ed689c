"""Training as pure functions, and the loop around them."""
