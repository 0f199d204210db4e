"""What is measured on CPUs alone."""
