"""Tables, figures and pages from files alone."""
