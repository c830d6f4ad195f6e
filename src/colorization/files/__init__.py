"""Photographs as files: reading, writing, metadata, folders and storage."""
