"""What this process has of its machine: devices, threads, memory, signals."""
