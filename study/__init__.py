"""What is run, where, and how it is recorded: studies of VS-GAE on NAS-Bench-101. Knows no table by name."""
