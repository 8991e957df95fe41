"""A server of one model: requests that arrive at any time are written together."""
