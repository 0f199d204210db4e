"""The study's folder: addresses, the lock, the formats of its files. No Ray, no MLflow."""
