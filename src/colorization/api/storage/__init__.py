"""The server's storage: its database, jobs, uploads and results."""
