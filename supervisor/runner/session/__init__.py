"""What the processes of a worker say of themselves, on the attempt's own socket."""
