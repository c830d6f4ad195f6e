"""What a trained model is: its description, its weights file, and what runs it."""
