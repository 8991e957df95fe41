"""The machine as this process has it: devices, threads, memory, signals."""
