"""One conversation of two replicas, sans-I/O: from the greeting to the last chunk."""
