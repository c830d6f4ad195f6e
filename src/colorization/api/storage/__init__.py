"""What the server keeps: its database, jobs, uploads and results."""
