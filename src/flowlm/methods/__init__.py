"""Methods: what loss an answer pays, and how to travel with it. One file each."""
