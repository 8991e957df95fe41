"""Names of what is in a directory, shipped or on the Hugging Face hub, and the hub itself."""
