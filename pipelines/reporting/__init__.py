"""Tables, figures and the report, made from files alone. No Ray."""
