"""What people use today for the same work; each runner is a program of its own."""
